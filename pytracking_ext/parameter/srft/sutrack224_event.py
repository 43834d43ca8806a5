"""The tracker that `run_training.py srft sutrack224_event` has trained."""

from functools import partial

from pytracking_ext.parameter.srft import trained

parameters = partial(trained, "sutrack224_event")
