"""ViPT on OSTrack-256 with its own settings: prompts alone, RGB-T on LasHeR.

python -m ltr_ext.run_training srft vipt256_thermal
"""

from ltr_ext.train_settings.paper import vipt_recipe

recipe = vipt_recipe("thermal")
run = recipe.run
