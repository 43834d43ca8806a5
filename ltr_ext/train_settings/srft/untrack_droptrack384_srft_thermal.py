"""UnTrack on DropTrack-384 with its backbone unfrozen, by SRFT: RGB-T on LasHeR (Table XII).

python -m ltr_ext.run_training srft untrack_droptrack384_srft_thermal
"""

from ltr_ext.train_settings.paper import unfrozen_recipe

recipe = unfrozen_recipe("untrack_droptrack384", "thermal")
run = recipe.run
