"""UnTrack on DropTrack-384 with its authors' settings: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft untrack_droptrack384_depth
"""

from ltr_ext.train_settings.paper import untrack_recipe

recipe = untrack_recipe("depth", network="untrack_droptrack384")
run = recipe.run
