"""RGB-E from the bundled RGB tracker, with SRFT: `tiny_depth` on other data, for a CPU.

python -m ltr_ext.run_training srft tiny_event datasets=visevent:/path/to/VisEvent
"""

from dataclasses import replace

from ltr_ext.train_settings.srft import tiny_depth

recipe = replace(tiny_depth.recipe, datasets=("synthetic_rgbe",))
run = recipe.run
