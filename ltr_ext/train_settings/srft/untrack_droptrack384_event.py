"""UnTrack on DropTrack-384 with its authors' settings: RGB-E on VisEvent.

python -m ltr_ext.run_training srft untrack_droptrack384_event
"""

from ltr_ext.train_settings.paper import untrack_recipe

recipe = untrack_recipe("event", network="untrack_droptrack384")
run = recipe.run
