"""SUTrack-B384 with SRFT: RGB-E on VisEvent; datasets=fe108 or coesot for the others.

python -m ltr_ext.run_training srft sutrack384_event
"""

from ltr_ext.train_settings.paper import paper_recipe

recipe = paper_recipe("sutrack_b384", "event")
run = recipe.run
