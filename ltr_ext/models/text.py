"""Sentences for SUTrack: the CLIP text tower that its official checkpoints carry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from srft_plugin.errors import UserError

from .checkpoint import read_checkpoint

_CLIP = "text_encoder.clip."
_IMAGES = r"visual\..*|logit_scale"  # the rest of CLIP
HEAD_WIDTH = 64  # of every CLIP text tower


class SentenceEncoder(nn.Module):
    """CLIP's text tower (ViT-L/14 in the official files), then a projection to one token.

    Needs the extra ``text``. The public tracker gives its network a token for every video, that of
    token ids 0 where there is no sentence::

        network.no_text = SentenceEncoder.from_checkpoint(file)([None])

    makes a ``SUTrack`` do the same.

    Args:
        state: tensors of an official SUTrack checkpoint.

    Raises:
        UserError: the extra is not installed.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        try:
            from open_clip.tokenizer import SimpleTokenizer
            from open_clip.transformer import QuickGELU, TextTransformer
        except ImportError as error:
            raise UserError('sentences need open_clip: pip install -e ".[text]"') from error
        clip = {
            key.removeprefix(_CLIP): value.float()
            for key, value in state.items()
            if key.startswith(_CLIP) and not re.fullmatch(_IMAGES, key.removeprefix(_CLIP))
        }
        width, outputs = clip["text_projection"].shape
        self.tower = TextTransformer(
            context_length=len(clip["positional_embedding"]),
            vocab_size=len(clip["token_embedding.weight"]),
            width=width,
            heads=max(width // HEAD_WIDTH, 1),
            layers=sum(key.endswith("ln_1.weight") for key in clip),
            output_dim=outputs,
            act_layer=QuickGELU,
        )
        self.tower.load_state_dict(clip)
        self.projection = nn.Linear(outputs, len(state["text_encoder.text_proj.bias"]))
        self.projection.weight.data.copy_(state["text_encoder.text_proj.weight"])
        self.projection.bias.data.copy_(state["text_encoder.text_proj.bias"])
        self.tokenize = SimpleTokenizer(context_length=self.tower.context_length)
        self.requires_grad_(False).eval()

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> SentenceEncoder:
        """The encoder of an official SUTrack file.

        Raises:
            UserError: the file has no text encoder (files of ``srft convert`` have not), or the
                extra is not installed.
        """
        state, _ = read_checkpoint(path)
        if not any(key.startswith(_CLIP) for key in state):
            raise UserError(
                f"{path} holds no text encoder ({_CLIP}*); give an official SUTrack checkpoint"
            )
        return cls(state)

    @torch.no_grad()
    def forward(self, sentences: Sequence[str | None]) -> Tensor:
        """(B, 1, dim) tokens for ``SUTrack.forward``; None stands for no sentence."""
        device = self.projection.weight.device
        ids = self.tokenize([sentence or "" for sentence in sentences]).to(device)
        given = torch.tensor([sentence is not None for sentence in sentences], device=device)
        return self.projection(self.tower(ids * given[:, None]))[:, None]
