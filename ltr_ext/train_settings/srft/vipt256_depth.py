"""ViPT on OSTrack-256 with its own settings: prompts alone, RGB-D on DepthTrack.

python -m ltr_ext.run_training srft vipt256_depth
"""

from ltr_ext.train_settings.paper import vipt_recipe

recipe = vipt_recipe("depth")
run = recipe.run
