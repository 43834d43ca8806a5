"""SDSTrack on OSTrack-256 with its authors' settings: RGB-T on LasHeR.

python -m ltr_ext.run_training srft sdstrack256_thermal
"""

from ltr_ext.train_settings.paper import sdstrack_recipe

recipe = sdstrack_recipe("thermal")
run = recipe.run
