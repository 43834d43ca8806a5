"""SUTrack-B224 with SRFT: RGB-T on LasHeR.

python -m ltr_ext.run_training srft sutrack224_thermal
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("sutrack_b224", "thermal")
run = recipe.run
