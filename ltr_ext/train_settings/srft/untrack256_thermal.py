"""UnTrack on OSTrack-256 with its authors' settings: RGB-T on LasHeR.

python -m ltr_ext.run_training srft untrack256_thermal
"""

from ltr_ext.train_settings.paper import untrack_recipe

recipe = untrack_recipe("thermal")
run = recipe.run
