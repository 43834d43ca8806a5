"""What depends on the template alone is computed once per template, not once per frame."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.sutrack import TokenRoles
from ltr_ext.models.swin import Swin
from ltr_ext.models.untrack import Edges
from ltr_ext.models.vit import PatchEmbed

# Parts of networks that see one image at a time, and the method that takes it as last argument.
SINGLE_IMAGE = (
    (PatchEmbed, "forward"),
    (Edges, "forward"),
    (Swin, "forward"),
    (TokenRoles, "patches"),
)


class Recall:
    """A function of an image that answers for the template from memory.

    A network calls it in the same order for every frame, so the answers are kept in that order,
    and for each batch size and type in a storage that stays: a CUDA graph that reads them is valid
    for other templates too, also after others of another size or type.

    Args:
        compute: the function; its last argument is the image, (B, C, H, W).
        size: W of templates.

    Attributes:
        learning: compute and keep the answers instead.
        turn: number of the next call for a template in this frame.
        answers: of those calls, by batch size and type of the image.
    """

    def __init__(self, compute: Callable[..., Tensor], size: int) -> None:
        self.compute, self.size = compute, size
        self.learning = False
        self.turn = 0
        self.answers: dict[tuple[int, torch.dtype], list[Tensor]] = {}

    def __call__(self, *arguments: object) -> Tensor:
        image = arguments[-1]
        if image.shape[-1] != self.size:
            return self.compute(*arguments)
        answers = self.answers.setdefault((len(image), image.dtype), [])
        turn, self.turn = self.turn, self.turn + 1
        if self.learning:
            answer = self.compute(*arguments)
            if turn == len(answers):
                answers.append(answer)
            else:
                answers[turn].copy_(answer)
        return answers[turn]


def version(tensor: Tensor) -> int:
    """How often it was written to; 0 for those made in inference mode, which do not count."""
    return 0 if tensor.is_inference() else tensor._version


def install(network: TrackingNetwork) -> list[Recall]:
    """Makes the parts of ``network`` that see one image at a time recall the template's answer.

    Template and search region are told apart by their size; where that is the same, nothing is
    installed.
    """
    memories = []
    if network.spec.template_size != network.spec.search_size:
        for module in network.modules():
            for kind, method in SINGLE_IMAGE:
                if isinstance(module, kind):
                    memory = Recall(getattr(module, method), network.spec.template_size)
                    setattr(module, method, memory)
                    memories.append(memory)
    return memories
