"""Which parameters train: chosen by one word in a recipe, independent of the regularizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import nn

from srft_plugin.errors import UserError, unknown

TRAINABLE_SETS = {
    "backbone": "all but box head (section III-A) and position embeddings (public code)",
    "backbone+head": "all but position embeddings: complete fine-tuning (Table VII)",
    "peft": "only what the network's efficient tuning adds",
    "peft+backbone": "what efficient tuning adds, and the backbone (Table VIII)",
    "peft+head": "what efficient tuning adds, and all outside the backbone (UPVPT)",
    "base": "all but what efficient tuning adds (UPVPT with fixed prompts, its Table 5)",
    "mlp": "only the MLPs of the backbone (UPVPT's choice, in a network without prompts)",
    "all": "every parameter: training from scratch",
}


class Tunable(Protocol):
    """What a network must offer; ``ltr_ext.models.network.TrackingNetwork`` does."""

    def freeze(self, head: bool) -> None:
        """Fix position embeddings and, if asked, the head with its batch statistics."""

    def peft_parameter_names(self) -> list[str]:
        """Parameters that efficient tuning trains."""

    def base_name(self, name: str) -> str | None:
        """Where a parameter comes from in the network that this one extends; None if it is new."""


def select_trainable(network: nn.Module | Tunable, which: str) -> None:
    """Sets ``requires_grad`` of every parameter as the set ``which`` says.

    Raises:
        UserError: an unknown set, or one of efficient tuning for a network that adds nothing.
    """
    if which not in TRAINABLE_SETS:
        raise unknown("trainable set", which, TRAINABLE_SETS)
    network.requires_grad_(True)
    if which == "all":
        return
    added = set(network.peft_parameter_names())
    if not added and which not in ("backbone", "backbone+head", "mlp"):
        raise UserError(
            f"trainable={which}: {type(network).__name__} has no parameters of efficient tuning; "
            "take backbone, backbone+head or mlp"
        )
    chosen: dict[str, Callable[[str], bool]] = {
        "peft": lambda name: name in added,
        "peft+head": lambda name: name in added or not name.startswith("backbone."),
        "base": lambda name: network.base_name(name) is not None,
        "mlp": lambda name: name.startswith("backbone.") and ".mlp." in name,
    }
    if which not in ("peft+head", "base"):
        network.freeze(head=which != "backbone+head")
    if which in chosen:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(chosen[which](name))


def trainable_table(network: nn.Module) -> str:
    """What trains, by part of the network: one line each with trained and total parameters."""
    counts: dict[str, list[int]] = {}
    trains = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    for name, parameter in network.named_parameters():
        module = name.split(".")[0]
        part = ".".join(name.split(".")[:2]) if module in trains else module
        trained, total = counts.setdefault(part, [0, 0])
        size = parameter.numel()
        counts[part] = [trained + size * parameter.requires_grad, total + size]
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [*counts.items(), ("total", sums)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {trained:>12,} of {total:>12,}"
                     for name, (trained, total) in rows)  # fmt: skip
