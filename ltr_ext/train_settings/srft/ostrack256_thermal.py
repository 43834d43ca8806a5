"""OSTrack-256 with SRFT: RGB-T on LasHeR.

python -m ltr_ext.run_training srft ostrack256_thermal
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("ostrack256", "thermal")
run = recipe.run
