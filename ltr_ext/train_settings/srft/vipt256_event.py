"""ViPT on OSTrack-256 with its own settings: prompts alone, RGB-E on VisEvent.

python -m ltr_ext.run_training srft vipt256_event
"""

from ltr_ext.train_settings.paper import vipt_recipe

recipe = vipt_recipe("event")
run = recipe.run
