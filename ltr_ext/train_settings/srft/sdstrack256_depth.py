"""SDSTrack on OSTrack-256 with its authors' settings: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft sdstrack256_depth
"""

from ltr_ext.train_settings.paper import sdstrack_recipe

recipe = sdstrack_recipe("depth")
run = recipe.run
