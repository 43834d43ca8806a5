"""OSTrack-256 with SRFT and the public code's rates: RGB-T on LasHeR.

python -m ltr_ext.run_training srft ostrack256_thermal_public
"""

from ltr_ext.train_settings.paper import public_recipe

recipe = public_recipe("thermal")
run = recipe.run
