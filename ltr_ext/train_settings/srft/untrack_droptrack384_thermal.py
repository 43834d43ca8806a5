"""UnTrack on DropTrack-384 with its authors' settings: RGB-T on LasHeR.

python -m ltr_ext.run_training srft untrack_droptrack384_thermal
"""

from ltr_ext.train_settings.paper import untrack_recipe

recipe = untrack_recipe("thermal", network="untrack_droptrack384")
run = recipe.run
