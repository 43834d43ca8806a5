"""UnTrack on DropTrack-384 with its authors' settings: RGB-D, RGB-T and RGB-E at once.

python -m ltr_ext.run_training srft untrack_droptrack384_rgbx
"""

from ltr_ext.train_settings.paper import untrack_recipe

recipe = untrack_recipe("depth", "thermal", "event", network="untrack_droptrack384")
run = recipe.run
