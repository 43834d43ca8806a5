"""SDSTrack on OSTrack-256 with its backbone unfrozen, by SRFT (Table VIII): RGB-D on DepthTrack.

python -m ltr_ext.run_training srft sdstrack256_srft_depth
"""

from ltr_ext.train_settings.paper import unfrozen_recipe

recipe = unfrozen_recipe("sdstrack256", "depth")
run = recipe.run
