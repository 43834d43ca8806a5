"""OSTrack-256 with SRFT and the public code's rates: RGB-E on VisEvent.

python -m ltr_ext.run_training srft ostrack256_event_public
"""

from ltr_ext.train_settings.paper import public_recipe

recipe = public_recipe("event")
run = recipe.run
