"""What a linked pytracking checkout calls: its test sets and experiments get SRFT's benchmarks.

pytracking itself is imported only when one of its commands asks for a data set, never by importing
this module.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np

from ltr_ext.admin.environment import DATASETS
from ltr_ext.dataset.sequence import Sequence
from pytracking_ext.evaluation.datasets import open_test_set
from pytracking_ext.evaluation.running import first_visible
from pytracking_ext.parameter import srft
from srft_plugin.errors import UserError

SEPARATOR = "_on_"
HOST_PARAMETERS = "pytracking.parameter.srft"


def register(module: ModuleType) -> None:
    """Adds the benchmarks to ``dataset_dict`` of ``pytracking.evaluation.datasets``.

    Training runs become parameter names at the same time: this is imported first in every process
    of pytracking, its worker processes included.

    Names that pytracking has itself keep its own reader. ``module`` is an argument because
    importing it by name would be circular while it is being imported.
    """
    for name in DATASETS:
        info = module.DatasetInfo(module=__name__, class_name="TestSet", kwargs={"name": name})
        module.dataset_dict.setdefault(name, info)
    sys.meta_path.append(TrainingRuns())


class TrainingRuns(MetaPathFinder, Loader):
    """The last of Python's import finders in a linked checkout: makes runs parameter modules.

    pytracking imports ``pytracking.parameter.srft.<param>``. What has no file of its own is the
    name of a training run; :func:`pytracking_ext.parameter.srft.trained` says when it is not.
    """

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """What Python asks of a finder; to it, the run ``v1.2`` lies in a package ``v1``."""
        ours = name.startswith(f"{HOST_PARAMETERS}.")
        return ModuleSpec(name, self, is_package=True) if ours else None

    def exec_module(self, module: ModuleType) -> None:
        """What Python asks of a loader."""
        run = module.__name__.removeprefix(f"{HOST_PARAMETERS}.")
        module.parameters = functools.partial(srft.trained, run)


def experiment(name: str) -> Callable[[], tuple[list, list]]:
    """The experiment ``<param>_on_<dataset>`` for ``run_experiment.py srft <name>``.

    It serves as the ``__getattr__`` of ``pytracking.experiments.srft``.

    Raises:
        AttributeError: a name of another form.
    """
    param, separator, dataset = name.rpartition(SEPARATOR)
    if not separator:
        raise AttributeError(
            f"no experiment {name!r}; expected <param>{SEPARATOR}<dataset>, "
            "such as default_rgb_on_depthtrack"
        )

    def run() -> tuple[list, list]:
        from pytracking.evaluation import get_dataset, trackerlist

        return trackerlist("srft", param), get_dataset(dataset)

    return run


class TestSet:
    """A benchmark as pytracking's ``load_dataset`` expects it.

    Args:
        name: of the benchmark; its folder is where `srft env set` or ``local.py`` says.
    """

    __test__ = False  # not a test class, whatever its name

    def __init__(self, name: str) -> None:
        self.name = name
        self._sequences = open_test_set(name)

    def __len__(self) -> int:
        return len(self._sequences)

    def get_sequence_list(self) -> list:
        """All sequences, as objects of pytracking's own class.

        Raises:
            UserError: frames that are no files, or annotation that cannot be used.
        """
        return [
            host_sequence(self._sequences[index], self.name)
            for index in range(len(self._sequences))
        ]


def host_sequence(sequence: Sequence, dataset: str) -> Any:
    """A sequence for pytracking, from its first annotated frame on.

    Its ``frame_info`` hands the tracker ``aux_path``, the auxiliary image's file, and ``modality``.
    """
    frames = sequence.frames
    if not hasattr(frames, "rgb_path"):
        raise UserError(f"{sequence.name}: pytracking reads image files, and this has none")
    start = first_visible(sequence)
    chosen = range(start, len(sequence))
    aux = [frames.aux_path(index) for index in chosen]
    return _sequence_class()(
        name=sequence.name,
        frames=[str(frames.rgb_path(index)) for index in chosen],
        dataset=dataset,
        # pytracking's analysis refuses NaN: an absent target is a row of zeros that is not visible
        ground_truth_rect=np.nan_to_num(sequence.boxes[start:]),
        target_visible=sequence.visible[start:],
        aux_frames=[None if path is None else str(path) for path in aux],
        modality=sequence.modality,
    )


@functools.cache
def _sequence_class() -> type:
    """A subclass of pytracking's ``Sequence``; made on demand, as pytracking may not be there."""
    from pytracking.evaluation.data import Sequence as HostSequence

    class AuxSequence(HostSequence):
        def __init__(
            self, *, aux_frames: list[str | None], modality: str | None, **fields: Any
        ) -> None:
            self.aux_frames, self.modality = aux_frames, modality
            super().__init__(**fields)

        def _ensure_start_frame(self) -> None:
            self.aux_frames = self.aux_frames[min(self.init_data) :]
            super()._ensure_start_frame()

        def frame_info(self, frame_num: int) -> dict[str, Any]:
            info = super().frame_info(frame_num)
            if "init_bbox" in info:
                info["init_bbox"] = tuple(info["init_bbox"])  # a list breaks its --debug view
            return info | {"aux_path": self.aux_frames[frame_num], "modality": self.modality}

        def __reduce__(self) -> tuple:
            return _restore, (self.__dict__,)

    return AuxSequence


def _restore(fields: dict[str, Any]) -> Any:
    """Unpickles a sequence in a worker process of pytracking."""
    sequence = object.__new__(_sequence_class())
    sequence.__dict__.update(fields)
    return sequence
