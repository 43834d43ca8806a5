"""RGB-T from the bundled RGB tracker, with SRFT: `tiny_depth` on other data, for a CPU.

python -m ltr_ext.run_training srft tiny_thermal datasets=lasher:/path/to/LasHeR
"""

from dataclasses import replace

from ltr_ext.train_settings.srft import tiny_depth

recipe = replace(tiny_depth.recipe, datasets=("synthetic_rgbt",))
run = recipe.run
