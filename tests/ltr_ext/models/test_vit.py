"""The ViT block against timm's."""

import functools
import subprocess
import sys

import pytest
import torch

from ltr_ext.models.vit import Block, DropPath


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_block_is_that_of_timm(training, biased):
    """Names of weights, initial values, outputs, and what chance leaves out."""
    timm = pytest.importorskip("timm.models.vision_transformer")
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    torch.manual_seed(0)
    theirs = timm.Block(48, 3, qkv_bias=True, drop_path=0.4, norm_layer=norm)
    torch.manual_seed(0)
    ours = Block(48, 3, drop_path=0.4)
    assert {name: value.tolist() for name, value in ours.state_dict().items()} == {
        name: value.tolist() for name, value in theirs.state_dict().items()
    }
    tokens = torch.randn(8, 10, 48)
    bias = torch.randn(1, 3, 10, 10) if biased else None
    outputs = []
    for block in (theirs, ours):
        torch.manual_seed(1)
        outputs.append(block.train(training)(tokens, bias))
    assert torch.equal(*outputs)


def test_stochastic_depth_leaves_whole_samples_out_and_keeps_the_mean():
    torch.manual_seed(0)
    residual = torch.ones(10_000, 2, 3)
    kept = DropPath(0.25)(residual)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.mean() == pytest.approx(1, abs=0.03)
    assert DropPath(0.25).eval()(residual) is residual


def test_networks_are_made_without_what_is_slow_to_import():
    code = (
        "import sys; import ltr_ext.models.registry, pytracking_ext.tracker.srft; "
        "print([name for name in ('timm', 'torchvision', 'torch._dynamo', 'matplotlib', 'scipy', "
        "'onnx', 'tensorboard') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
