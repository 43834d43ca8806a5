"""UnTrack on OSTrack-256 with its authors' settings: RGB-E on VisEvent.

python -m ltr_ext.run_training srft untrack256_event
"""

from ltr_ext.train_settings.paper import untrack_recipe

recipe = untrack_recipe("event")
run = recipe.run
