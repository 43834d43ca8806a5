"""SUTrack's text token in every command, with a stand-in for the encoder of an official file."""

from pathlib import Path

import pytest
import torch

from ltr_ext.models import registry, text
from ltr_ext.models.checkpoint import load_network, save_network
from ltr_ext.models.sutrack import SUTrack, SUTrackSpec, TwoBranchSUTrack
from pytracking_ext.parameter.srft import load
from srft_plugin.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "sutrack_text.py"
TOKEN = torch.full((1, 1, 64), 3.0)
SPEC = SUTrackSpec(
    name="sutrack_mini", template_size=32, search_size=64, dim=64, stage_depth=1, depth=4
)
SHORT = [
    "epochs=1", "samples_per_epoch=4", "batch_size=2", "prior_samples=4", "top_k=2", "workers=0",
    "precision=fp32", "source=synthetic_rgb", "datasets=synthetic_rgbd",
]  # fmt: skip


class Encoder:
    """Answers with one token, as that of an official file does."""

    @classmethod
    def from_checkpoint(cls, path):
        return lambda sentences: TOKEN


def test_the_token_is_there_in_training_and_tracking(load_script, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_BY_NAME", dict(registry._BY_NAME))
    registry.register_network(SUTrack, SPEC)
    registry.register_network(TwoBranchSUTrack, SPEC.two_branch())
    monkeypatch.setattr(text, "SentenceEncoder", Encoder)
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path / "runs"))
    file, base = tmp_path / "mini.safetensors", tmp_path / "base.safetensors"
    save_network(SUTrack(SPEC), file)
    example = load_script(EXAMPLE)
    convert = ["convert", str(file), str(base), "--network", "sutrack_mini_text"]
    assert example.run([str(file), *convert]) == 0
    assert torch.equal(load_network(base).no_text, TOKEN)
    network = "network=two_branch_sutrack_mini_text"
    train = ["train", "sutrack224_depth", "--name", "told", network, f"base={base}", *SHORT]
    assert main(train) == 0
    assert torch.equal(load("told").network.no_text, TOKEN)
    assert load("plain", file).network.no_text is None


def test_without_a_file_it_says_how_to_call_it(load_script):
    with pytest.raises(SystemExit, match="Needs the extra `text`, and an official file"):
        load_script(EXAMPLE).run([])
