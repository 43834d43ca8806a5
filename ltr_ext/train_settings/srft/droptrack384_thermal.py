"""DropTrack-384 with SRFT: RGB-T on LasHeR.

python -m ltr_ext.run_training srft droptrack384_thermal
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("droptrack384", "thermal")
run = recipe.run
