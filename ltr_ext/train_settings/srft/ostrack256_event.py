"""OSTrack-256 with SRFT: RGB-E on VisEvent; datasets=fe108 or coesot for the others.

python -m ltr_ext.run_training srft ostrack256_event
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("ostrack256", "event")
run = recipe.run
