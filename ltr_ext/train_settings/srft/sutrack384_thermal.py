"""SUTrack-B384 with SRFT: RGB-T on LasHeR.

python -m ltr_ext.run_training srft sutrack384_thermal
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("sutrack_b384", "thermal")
run = recipe.run
