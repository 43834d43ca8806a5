"""OSTrack-384 with SRFT: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft ostrack384_depth
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("ostrack384", "depth")
run = recipe.run
