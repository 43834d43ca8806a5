"""ViPT on DropTrack-384 with its own settings: prompts alone, RGB-T on LasHeR.

python -m ltr_ext.run_training srft vipt_droptrack384_thermal
"""

from ltr_ext.train_settings.paper import vipt_recipe

recipe = vipt_recipe("thermal", network="vipt_droptrack384")
run = recipe.run
