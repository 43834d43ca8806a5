"""Trackers for the tests, created as ``fake_tracker:NAME`` by the server. No network, no torch."""

import os
import signal
import sys
import time

import numpy as np

FAULTY_FRAME = 5  # where the trackers with a fault show it


class Blob:
    """Box around the red pixels; confidence is the share of the first box's area. Exact data in,
    nearly exact boxes out; no red pixel: the last box."""

    aux_missing = 0

    def initialize(self, image, info):
        self.box = tuple(info["init_bbox"])
        self.area = self.box[2] * self.box[3]
        self.frame = 0
        self.aux_missing = 0

    def track(self, image, info):
        self.frame += 1
        if not os.path.exists(info["aux_path"]):
            self.aux_missing += 1
        pixels = image.astype(int)
        rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 2] > 60)
        if len(rows):
            x, y = columns.min(), rows.min()
            self.box = (x, y, columns.max() - x + 1, rows.max() - y + 1)
        confidence = min(1.0, len(rows) / self.area)
        return {"target_bbox": list(self.box), "object_presence_score": confidence}


class Still(Blob):
    """Never moves; confidence falls with time."""

    def track(self, image, info):
        self.frame += 1
        return {"target_bbox": list(self.box), "object_presence_score": 1 / (1 + self.frame)}


class Faulty(Still):
    """A tracker whose frame `FAULTY_FRAME` goes wrong, but only in sequence ``b``."""

    def track(self, image, info):
        output = super().track(image, info)
        if self.frame == FAULTY_FRAME and "/b/" in info["aux_path"]:
            self.fail(output)
        return output


def blob(checkpoint, device):
    return Blob()


def still(checkpoint, device):
    return Still()


class Waiting(Still):
    """Takes too long for every frame, and ends when the toolkit does."""

    def track(self, image, info):
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(0)


def waits(checkpoint, device):
    return Waiting()


def unloadable(checkpoint, device):
    raise ValueError("the network\nis broken")


def _faulty(fail):
    def create(checkpoint, device):
        tracker = Faulty()
        tracker.fail = fail
        return tracker

    return create


def _raise(output):
    raise RuntimeError("out of\nluck")


def _nan(output):
    output["target_bbox"][0] = float("nan")
    output["object_presence_score"] = float("nan")


def _print(output):
    print("x" * 100_000, end="")
    print("\n@@TRAX:quit", file=sys.stderr)
    print("no newline", end="", file=sys.stderr)


raises = _faulty(_raise)
exits = _faulty(lambda output: os._exit(7))
hangs = _faulty(lambda output: time.sleep(600))
kills_its_parent = _faulty(lambda output: os.kill(os.getppid(), signal.SIGKILL))
nans = _faulty(_nan)
prints = _faulty(_print)
empties = _faulty(lambda output: output.update(target_bbox=[1.0, 1.0, 0.0, -1.0]))
