"""SDSTrack on DropTrack-384 with its authors' settings: RGB-E on VisEvent.

python -m ltr_ext.run_training srft sdstrack_droptrack384_event
"""

from ltr_ext.train_settings.paper import sdstrack_recipe

recipe = sdstrack_recipe("event", network="sdstrack_droptrack384")
run = recipe.run
