"""DropTrack-384 with SRFT: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft droptrack384_depth
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("droptrack384", "depth")
run = recipe.run
