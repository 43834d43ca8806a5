"""SDSTrack on OSTrack-256 with its backbone unfrozen, by SRFT (Table VIII): RGB-E on VisEvent.

python -m ltr_ext.run_training srft sdstrack256_srft_event
"""

from ltr_ext.train_settings.paper import unfrozen_recipe

recipe = unfrozen_recipe("sdstrack256", "event")
run = recipe.run
