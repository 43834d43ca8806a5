"""SUTrack-B384 with SRFT: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft sutrack384_depth
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("sutrack_b384", "depth")
run = recipe.run
