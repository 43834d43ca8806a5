"""ViPT on OSTrack-256 with its backbone unfrozen, by SRFT: RGB-E on VisEvent (Table VIII).

python -m ltr_ext.run_training srft vipt256_srft_event
"""

from ltr_ext.train_settings.paper import unfrozen_recipe

recipe = unfrozen_recipe("vipt256", "event")
run = recipe.run
