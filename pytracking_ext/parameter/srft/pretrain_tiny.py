"""The tracker that `run_training.py srft pretrain_tiny` has trained."""

from functools import partial

from pytracking_ext.parameter.srft import trained

parameters = partial(trained, "pretrain_tiny")
