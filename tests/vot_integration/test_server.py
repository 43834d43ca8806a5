"""The parts of the server that guard the protocol: what is reported, what is printed."""

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vot_integration.answers import reportable
from vot_integration.server import Session, WholeLines, load_tracker

numbers = st.floats(width=32) | st.sampled_from([0.0, -1.0, math.nan, math.inf])


@given(st.tuples(numbers, numbers, numbers, numbers), numbers)
def test_what_is_reported_is_a_box(box, confidence):
    last = (1.0, 2.0, 3.0, 4.0)
    found, value = reportable(box, confidence, last)
    assert all(map(math.isfinite, (*found, value)))
    assert found[2] > 0 and found[3] > 0
    usable = all(map(math.isfinite, box)) and box[2] > 0 and box[3] > 0
    assert found == (box if usable else last)
    assert value == (confidence if usable and math.isfinite(confidence) else 0)


@given(st.lists(st.text("x\n@TRAX: ", max_size=12) | st.just("@@TRAX:state")))
def test_only_whole_lines_without_the_mark_pass(texts):
    target = io.StringIO()
    lines = WholeLines(target)
    for text in texts:
        lines.write(text)
        assert target.getvalue()[-1:] in ("", "\n")
    lines.finish()
    printed = target.getvalue()
    assert "@@TRAX" not in printed
    everything = "".join(texts)
    whole = everything + "\n" if everything and everything[-1] != "\n" else everything
    assert printed == whole.replace("@@TRAX", "@@ TRAX")


class Recorder:
    """Notes what it is asked and answers from a list."""

    def __init__(self, answers):
        self.aux_missing, self.answers, self.asked = 0, answers, []

    def initialize(self, image, info):
        self.aux_missing = 0
        self.asked.append(info)

    def track(self, image, info):
        self.asked.append(info)
        box, confidence, missing = self.answers.pop(0)
        self.aux_missing += missing
        return {"target_bbox": box, "object_presence_score": confidence}


def test_session(data_set):
    color = str(data_set / "a" / "color" / "00000001.jpg")
    nan = [math.nan, 1, 1, 1]
    tracker = Recorder([(nan, 0.9, 0), ([5, 6, 7, 8], 0.8, 1), (nan, 0.7, 0), (nan, 0.6, 0)])
    session = Session(tracker, "depth")
    session.initialize(color, "d1", (1.0, 2.0, 3.0, 4.0))
    assert session.track(color, "d2") == ((1, 2, 3, 4), {"confidence": 0})
    assert session.track(color, "d3") == ((5, 6, 7, 8), {"confidence": 0.8, "rgb_only": 1})
    assert session.track(color, "d4") == ((5, 6, 7, 8), {"confidence": 0})
    session.initialize(color, "d5", (9.0, 9.0, 9.0, 9.0))  # nothing remains of the one before
    assert session.track(color, "d6") == ((9, 9, 9, 9), {"confidence": 0})
    assert tracker.asked[0] == {
        "init_bbox": [1, 2, 3, 4],
        "aux_path": "d1",
        "modality": "depth",
    }
    assert [info["aux_path"] for info in tracker.asked] == ["d1", "d2", "d3", "d4", "d5", "d6"]


def test_factories_get_checkpoint_and_device():
    environment = {"SRFT_TRACKER": "builtins:max", "SRFT_CHECKPOINT": "a", "SRFT_DEVICE": "b"}
    assert load_tracker(environment) == "b"  # max("a", "b")
    with pytest.raises(ModuleNotFoundError):
        load_tracker({"SRFT_TRACKER": "nowhere:factory"})
