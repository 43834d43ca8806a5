"""The tracker that `run_training.py srft ostrack256_thermal` has trained."""

from functools import partial

from pytracking_ext.parameter.srft import trained

parameters = partial(trained, "ostrack256_thermal")
