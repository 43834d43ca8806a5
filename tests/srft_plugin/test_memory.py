"""A step's working memory is bounded: there is no extra copy of the parameters."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.profiler import ProfilerActivity, profile

from srft_plugin import SRFT, bind_operations


class Foreign(AdamW):
    """Not one of those known to update each parameter on its own."""


def bytes_at_peak(run):
    """What ``run`` takes from the allocator, at its most."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    events = record.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = torch.tensor([change for _, change in changes]).cumsum(0)
    return int(held.max())


def growth(make, fused=False):
    """Peak of a step, in bytes for each byte of parameters that a larger network has more."""
    peaks, sizes = [], []
    for layers in (32, 48):
        network = nn.ModuleList(nn.Linear(256, 256) for _ in range(layers))
        for p in network.parameters():
            p.grad = torch.randn_like(p)
        inner = make(network.parameters(), lr=1e-3)
        optimizer = SRFT(inner, bind_operations(network), 9, mode="transfer", fused=fused)
        optimizer.step()  # makes AdamW's state
        optimizer._update._scratch.clear()  # old values, which are kept to be used again
        peaks.append(bytes_at_peak(optimizer.step))
        sizes.append(sum(p.nbytes for p in network.parameters()))
    return (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])


@pytest.mark.parametrize("fused", [False, True])
def test_memory_of_a_step_does_not_grow_with_the_network(fused, monkeypatch):
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0)
    monkeypatch.setattr("srft_plugin.update.BUCKET_ELEMENTS", 1 << 18)
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("srft_plugin.kernels.compiled", lambda function: function)
    # torch's foreach implementation, the default, makes temporary copies of all it is given
    assert growth(lambda ps, lr: AdamW(ps, lr, fused=True), fused) < 0.02
    if not fused:  # the measure sees a copy where there is one
        assert growth(lambda ps, lr: Foreign(ps, lr, fused=True)) > 0.98
