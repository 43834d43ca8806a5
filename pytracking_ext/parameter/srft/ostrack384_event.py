"""The tracker that `run_training.py srft ostrack384_event` has trained."""

from functools import partial

from pytracking_ext.parameter.srft import trained

parameters = partial(trained, "ostrack384_event")
