"""ViPT on OSTrack-256 with its backbone unfrozen, by SRFT: RGB-D on DepthTrack (Table VIII).

python -m ltr_ext.run_training srft vipt256_srft_depth
"""

from ltr_ext.train_settings.paper import unfrozen_recipe

recipe = unfrozen_recipe("vipt256", "depth")
run = recipe.run
