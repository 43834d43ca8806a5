"""ViPT on OSTrack-256 with its backbone unfrozen, by SRFT: RGB-T on LasHeR (Table VIII).

python -m ltr_ext.run_training srft vipt256_srft_thermal
"""

from ltr_ext.recipe import unfrozen_recipe

recipe = unfrozen_recipe("vipt256", "ostrack256", "thermal")
run = recipe.run
