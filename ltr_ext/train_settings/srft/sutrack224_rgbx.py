"""SUTrack-B224 with SRFT: one tracker for depth, thermal and event.

python -m ltr_ext.run_training srft sutrack224_rgbx
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("sutrack_b224", "depth", "thermal", "event")
run = recipe.run
