"""ViPT on DropTrack-384 with its own settings: prompts alone, RGB-E on VisEvent.

python -m ltr_ext.run_training srft vipt_droptrack384_event
"""

from ltr_ext.train_settings.paper import vipt_recipe

recipe = vipt_recipe("event", network="vipt_droptrack384")
run = recipe.run
