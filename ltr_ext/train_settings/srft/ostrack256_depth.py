"""OSTrack-256 with SRFT: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft ostrack256_depth
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("ostrack256", "depth")
run = recipe.run
