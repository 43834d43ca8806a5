"""OSTrack-256 with SRFT: one tracker for depth, thermal and event.

python -m ltr_ext.run_training srft ostrack256_rgbx
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("ostrack256", "depth", "thermal", "event")
run = recipe.run
