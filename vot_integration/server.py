"""The TraX server: ``python -m vot_integration.server``, started by the VOT toolkit.

Environment, written into trackers.ini by `vot_integration.workspace`:

    SRFT_TRACKER      parameter name under pytracking_ext/parameter/srft, or ``module:factory``,
                      where ``factory(checkpoint, device)`` returns an object with ``initialize``
                      and ``track`` as `SRFTTracker` has them
    SRFT_CHECKPOINT   weights; unset: those that the parameters name
    SRFT_DEVICE       torch device
    SRFT_PRECISION    number format of the engine; unset: the network as it is
    SRFT_CHANNEL      auxiliary channel, ``depth`` or ``ir``

One process serves any number of sequences. It announces no ``vot`` metadata, for the toolkit would
then start a process, and load the network, for every run.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import trax
from trax.image import Image, ImageChannel
from trax.server import Server

from .answers import Box, reportable
from .parameters import auxiliary_channel, load_parameters, modality_of


def load_tracker(environment: Mapping[str, str]) -> Any:
    """The tracker that the ``SRFT_*`` variables name, with its network loaded."""
    module, separator, factory = environment["SRFT_TRACKER"].partition(":")
    if separator:
        create = getattr(importlib.import_module(module), factory)
        return create(environment.get("SRFT_CHECKPOINT"), environment.get("SRFT_DEVICE", "cpu"))
    from pytracking_ext.tracker.srft import SRFTTracker

    return SRFTTracker(load_parameters(environment))


class Session:
    """Runs a tracker over sequences of frames of a modality, given by file names."""

    def __init__(self, tracker: Any, modality: str) -> None:
        from ltr_ext.data.io import read_rgb  # slow to import: before the handshake

        self.tracker, self.modality = tracker, modality
        self._read = read_rgb
        self._last: Box

    def initialize(self, color: str, auxiliary: str, box: Box) -> None:
        """Starts on a new sequence; nothing of the one before remains."""
        self._last = box
        info = {"init_bbox": list(box), "aux_path": auxiliary, "modality": self.modality}
        self.tracker.initialize(self._read(color), info)

    def track(self, color: str, auxiliary: str) -> tuple[Box, dict[str, float]]:
        """Box and properties of the next frame, safe to report.

        The property ``rgb_only`` marks a frame whose auxiliary image could not be read.
        """
        missing = getattr(self.tracker, "aux_missing", 0)
        output = self.tracker.track(self._read(color), {"aux_path": auxiliary})
        self._last, confidence = reportable(
            output["target_bbox"], output["object_presence_score"], self._last
        )
        properties = {"confidence": confidence}
        if getattr(self.tracker, "aux_missing", 0) > missing:
            properties["rgb_only"] = 1
        return self._last, properties


def serve(load: Callable[[], Any], channel: str) -> int:
    """Answers the toolkit until it ends the session; returns the exit status.

    The network is loaded before the handshake, when no time limit runs. An error there is kept for
    the first request, because a server that never answers is reported as "Unable to connect".
    """
    session, failure = None, None
    try:
        session = Session(load(), modality_of(channel))
    except Exception as error:
        failure = error
    server = Server(
        [trax.Region.RECTANGLE], [Image.PATH], [ImageChannel.COLOR, channel], "srft", "SRFT"
    )
    try:
        while (request := server.wait()).type != trax.TraxStatus.QUIT:
            if failure is not None:
                raise failure
            color, auxiliary = (request.image[key].path() for key in (ImageChannel.COLOR, channel))
            if request.type == trax.TraxStatus.INITIALIZE:
                box = request.objects[0][0].bounds()
                session.initialize(color, auxiliary, box)
                properties = {}  # a confidence here enters the toolkit's thresholds
            else:
                box, properties = session.track(color, auxiliary)
            server.status([(trax.Rectangle.create(*box), properties)])
    except Exception as error:
        traceback.print_exception(error)
        server.quit(" ".join(f"{type(error).__name__}: {error}".split()))
        return 1
    server.quit()
    return 0


class WholeLines(io.TextIOBase):
    """Passes text on in whole lines that cannot be taken for a message of the protocol.

    The toolkit reads our stdout and stderr from one pipe with the protocol. A message that follows
    an unfinished line is lost, and the toolkit waits until it kills the tracker.
    """

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._held = ""

    def write(self, text: str) -> int:
        """Writes the lines that are complete and holds the rest back."""
        lines, newline, self._held = (self._held + text).rpartition("\n")
        self._target.write((lines + newline).replace("@@TRAX", "@@ TRAX"))
        self._target.flush()
        return len(text)

    def finish(self) -> None:
        """Writes what was held back."""
        if self._held:
            self.write("\n")


def main() -> int:
    """Entry point; the protocol has stdout for itself, everything printed goes to the log."""
    log = WholeLines(sys.stderr)
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        status = serve(lambda: load_tracker(os.environ), auxiliary_channel(os.environ))
        log.finish()
    return status


if __name__ == "__main__":
    sys.exit(main())
