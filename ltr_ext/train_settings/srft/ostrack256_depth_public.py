"""OSTrack-256 with SRFT and the public code's rates: RGB-D on DepthTrack.

python -m ltr_ext.run_training srft ostrack256_depth_public
"""

from ltr_ext.train_settings.paper import public_recipe

recipe = public_recipe("depth")
run = recipe.run
