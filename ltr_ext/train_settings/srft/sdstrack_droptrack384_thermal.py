"""SDSTrack on DropTrack-384 with its authors' settings: RGB-T on LasHeR.

python -m ltr_ext.run_training srft sdstrack_droptrack384_thermal
"""

from ltr_ext.train_settings.paper import sdstrack_recipe

recipe = sdstrack_recipe("thermal", network="sdstrack_droptrack384")
run = recipe.run
