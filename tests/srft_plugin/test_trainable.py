"""Trainable sets on a small network with a head, positions and added modules."""

import pytest
from torch import nn

from srft_plugin.errors import UserError
from srft_plugin.tuning.trainable import TRAINABLE_SETS, select_trainable, trainable_table


class Toy(nn.Module):
    def __init__(self, prompts=True):
        super().__init__()
        self.pos_embed = nn.Linear(2, 1, bias=False)
        self.blocks = nn.Linear(3, 3)
        self.box_head = nn.Linear(3, 4)
        if prompts:
            self.prompt = nn.Linear(3, 1)

    def freeze(self, head):
        self.pos_embed.requires_grad_(False)
        self.box_head.requires_grad_(not head)

    def peft_parameter_names(self):
        return [name for name, _ in self.named_parameters() if "prompt" in name]


@pytest.mark.parametrize(
    ("which", "trained"),
    [
        ("all", {"pos_embed", "blocks", "box_head", "prompt"}),
        ("backbone", {"blocks", "prompt"}),
        ("backbone+head", {"blocks", "box_head", "prompt"}),
        ("peft", {"prompt"}),
        ("peft+backbone", {"blocks", "prompt"}),
    ],
)
def test_what_trains(which, trained):
    network = Toy()
    network.requires_grad_(False)  # whatever was before
    select_trainable(network, which)
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == trained


def test_every_set_is_known():
    assert set(TRAINABLE_SETS) == {"all", "backbone", "backbone+head", "peft", "peft+backbone"}
    with pytest.raises(UserError, match="unknown trainable set 'head'"):
        select_trainable(Toy(), "head")


@pytest.mark.parametrize("which", ["peft", "peft+backbone"])
def test_efficient_tuning_needs_something_to_tune(which):
    with pytest.raises(UserError, match="Toy has no parameters of efficient tuning"):
        select_trainable(Toy(prompts=False), which)


def test_table_counts():
    network = Toy()
    select_trainable(network, "peft")
    lines = [line.split() for line in trainable_table(network).splitlines()]
    assert ["prompt.weight", "3", "of", "3"] in lines
    assert ["box_head", "0", "of", "16"] in lines  # nothing of it trains: one line
    assert lines[-1] == ["total", "4", "of", "34"]
