"""The multistart experiment of VOT-RGBD2022, for toolkits whose own one is broken.

Toolkits 0.8.0 to 0.9.0 hand the tracker an ``ObjectQuery`` where it expects a region, so their
``vot evaluate`` stops with a TypeError before the first frame. The stack files of this package name
this class, so that one workspace works with every toolkit. Nothing but the toolkit is imported.
"""

from __future__ import annotations

from collections.abc import Callable

from vot.dataset import Sequence
from vot.dataset.proxy import FrameMapSequence
from vot.experiment.multistart import MultiStartExperiment, find_anchors
from vot.region import Special
from vot.tracker import ObjectStatus, Tracker, TrackerRuntime, Trajectory


class MultiStart(MultiStartExperiment):
    """Runs the tracker from every anchor, forward to the end or backward to the first frame."""

    def execute(
        self,
        tracker: Tracker,
        sequence: Sequence,
        force: bool = False,
        callback: Callable[[float], None] | None = None,
    ) -> None:
        """Runs all anchors of ``sequence`` that have no result yet, all of them with ``force``.

        Raises:
            RuntimeError: the sequence has no anchor.
        """
        forward, backward = find_anchors(sequence, self.anchor)
        if not forward and not backward:
            raise RuntimeError(f"Sequence {sequence.name} does not contain any anchors")
        runs = [(anchor, range(anchor, len(sequence))) for anchor in forward]
        runs += [(anchor, range(anchor, -1, -1)) for anchor in backward]

        results = self.results(tracker, sequence)
        with self._get_runtime(tracker, sequence) as runtime:
            for done, (anchor, frames) in enumerate(runs, 1):
                name = f"{sequence.name}_{anchor:08d}"
                if force or not Trajectory.exists(results, name):
                    self._run(runtime, sequence, frames).write(results, name)
                if callback:
                    callback(done / len(runs))

    def _run(self, runtime: TrackerRuntime, sequence: Sequence, frames: range) -> Trajectory:
        view = FrameMapSequence(sequence, list(frames))
        trajectory = Trajectory(len(view))
        _, elapsed = runtime.initialize(view.frame(0), [ObjectStatus(view.groundtruth(0), {})])
        trajectory.set(0, Special(Trajectory.INITIALIZATION), {"time": elapsed})
        for index in range(1, len(view)):
            status, elapsed = runtime.update(view.frame(index), [])
            if isinstance(status, list):  # since 0.8
                (status,) = status
            trajectory.set(index, status.region, {**status.properties, "time": elapsed})
        return trajectory
