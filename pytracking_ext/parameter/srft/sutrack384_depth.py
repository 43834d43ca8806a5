"""The tracker that `run_training.py srft sutrack384_depth` has trained."""

from functools import partial

from pytracking_ext.parameter.srft import trained

parameters = partial(trained, "sutrack384_depth")
