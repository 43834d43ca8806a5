"""UnTrack on OSTrack-256 with its backbone unfrozen, by SRFT (Table VIII): RGB-D on DepthTrack.

python -m ltr_ext.run_training srft untrack256_srft_depth
"""

from ltr_ext.train_settings.paper import unfrozen_recipe

recipe = unfrozen_recipe("untrack256", "depth")
run = recipe.run
