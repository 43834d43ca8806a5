"""SDSTrack on OSTrack-256 with its authors' settings: RGB-E on VisEvent.

python -m ltr_ext.run_training srft sdstrack256_event
"""

from ltr_ext.train_settings.paper import sdstrack_recipe

recipe = sdstrack_recipe("event")
run = recipe.run
