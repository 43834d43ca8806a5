"""UnTrack on OSTrack-256, backbone unfrozen, by SRFT (Table VIII): RGB-D, RGB-T and RGB-E at once.

python -m ltr_ext.run_training srft untrack256_srft_rgbx
"""

from ltr_ext.train_settings.paper import unfrozen_recipe

recipe = unfrozen_recipe("untrack256", "depth", "thermal", "event")
run = recipe.run
