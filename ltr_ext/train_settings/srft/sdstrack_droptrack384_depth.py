"""SDSTrack on DropTrack-384 with its authors' settings: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft sdstrack_droptrack384_depth
"""

from ltr_ext.train_settings.paper import sdstrack_recipe

recipe = sdstrack_recipe("depth", network="sdstrack_droptrack384")
run = recipe.run
