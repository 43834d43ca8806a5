"""Trainable sets on a small network with a head, positions and added modules."""

import pytest
from torch import nn

from srft_plugin.errors import UserError
from srft_plugin.tuning.trainable import TRAINABLE_SETS, select_trainable, trainable_table


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Linear(2, 1, bias=False)
        self.backbone = nn.ModuleDict({"attn": nn.Linear(3, 3), "mlp": nn.Linear(3, 3)})
        self.box_head = nn.Linear(3, 4)
        self.backbone["prompt"] = nn.Linear(3, 1)

    def freeze(self, head):
        self.pos_embed.requires_grad_(False)
        self.box_head.requires_grad_(not head)

    def peft_parameter_names(self):
        return [name for name, _ in self.named_parameters() if "prompt" in name or "mlp" in name]

    def base_name(self, name):
        return None if "prompt" in name else name


class Bare(Toy):
    def peft_parameter_names(self):
        return []


TRAINED = {
    "all": {"pos_embed", "attn", "mlp", "prompt", "box_head"},
    "backbone": {"attn", "mlp", "prompt"},
    "backbone+head": {"attn", "mlp", "prompt", "box_head"},
    "peft": {"mlp", "prompt"},
    "peft+backbone": {"attn", "mlp", "prompt"},
    "peft+head": {"mlp", "prompt", "pos_embed", "box_head"},
    "base": {"pos_embed", "attn", "mlp", "box_head"},
    "mlp": {"mlp"},
}


@pytest.mark.parametrize("which", TRAINABLE_SETS)
def test_what_trains(which):
    network = Toy()
    network.requires_grad_(False)  # whatever was before
    select_trainable(network, which)
    trained = {name.split(".")[-2] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == TRAINED[which]


def test_unknown_set_is_refused():
    with pytest.raises(UserError, match="unknown trainable set 'head'"):
        select_trainable(Toy(), "head")


@pytest.mark.parametrize("which", ["peft", "peft+backbone", "peft+head", "base"])
def test_efficient_tuning_needs_something_to_tune(which):
    with pytest.raises(UserError, match="Bare has no parameters of efficient tuning"):
        select_trainable(Bare(), which)


def test_mlps_train_without_efficient_tuning():
    network = Bare()
    select_trainable(network, "mlp")
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained == ["backbone.mlp.weight", "backbone.mlp.bias"]


def test_table_counts():
    network = Toy()
    select_trainable(network, "peft")
    lines = [line.split() for line in trainable_table(network).splitlines()]
    assert ["backbone.attn", "0", "of", "12"] in lines
    assert ["backbone.prompt", "4", "of", "4"] in lines
    assert ["box_head", "0", "of", "16"] in lines  # nothing of it trains: one line
    assert lines[-1] == ["total", "16", "of", "46"]
