"""UnTrack on OSTrack-256 with its authors' settings: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft untrack256_depth
"""

from ltr_ext.train_settings.paper import untrack_recipe

recipe = untrack_recipe("depth")
run = recipe.run
