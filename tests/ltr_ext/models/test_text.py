"""SUTrack's sentences against CLIP's text transformer written out."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn.functional import layer_norm

from ltr_ext.models.registry import build_network
from ltr_ext.models.text import SentenceEncoder
from srft_plugin.errors import UserError

WIDTH, OUTPUTS, DIM, LAYERS, VOCABULARY = 64, 32, 48, 2, 49408


@pytest.fixture(scope="module")
def state():
    """The names of an official file, at a small size."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "positional_embedding": (77, WIDTH),
        "text_projection": (WIDTH, OUTPUTS),
        "token_embedding.weight": (VOCABULARY, WIDTH),
        "ln_final.weight": (WIDTH,),
        "ln_final.bias": (WIDTH,),
        "logit_scale": (),
        "visual.proj": (8, 8),
    }
    for layer in range(LAYERS):
        parts = {
            "ln_1.weight": (WIDTH,), "ln_1.bias": (WIDTH,),
            "ln_2.weight": (WIDTH,), "ln_2.bias": (WIDTH,),
            "attn.in_proj_weight": (3 * WIDTH, WIDTH), "attn.in_proj_bias": (3 * WIDTH,),
            "attn.out_proj.weight": (WIDTH, WIDTH), "attn.out_proj.bias": (WIDTH,),
            "mlp.c_fc.weight": (4 * WIDTH, WIDTH), "mlp.c_fc.bias": (4 * WIDTH,),
            "mlp.c_proj.weight": (WIDTH, 4 * WIDTH), "mlp.c_proj.bias": (WIDTH,),
        }  # fmt: skip
        shapes |= {f"transformer.resblocks.{layer}.{key}": s for key, s in parts.items()}
    tensors = {
        f"text_encoder.clip.{key}": 0.2 * torch.randn(shape, generator=generator)
        for key, shape in shapes.items()
    }
    tensors["text_encoder.text_proj.weight"] = torch.randn(DIM, OUTPUTS, generator=generator)
    tensors["text_encoder.text_proj.bias"] = torch.randn(DIM, generator=generator)
    return tensors | {"text_encoder.norm1.weight": torch.ones(OUTPUTS)}


def by_hand(state, ids):
    """CLIP's text transformer for one row of token ids, one head, then the projection."""

    def get(name):
        return state[f"text_encoder.clip.{name}"]

    def norm(x, name):
        return layer_norm(x, (WIDTH,), get(f"{name}.weight"), get(f"{name}.bias"))

    x = get("token_embedding.weight")[ids] + get("positional_embedding")
    later = torch.full((77, 77), float("-inf")).triu(1)
    for layer in range(LAYERS):
        name = f"transformer.resblocks.{layer}"
        weight, bias = get(f"{name}.attn.in_proj_weight"), get(f"{name}.attn.in_proj_bias")
        q, k, v = (norm(x, f"{name}.ln_1") @ weight.T + bias).chunk(3, 1)
        mixed = (q @ k.T / WIDTH**0.5 + later).softmax(1) @ v
        x = x + mixed @ get(f"{name}.attn.out_proj.weight").T + get(f"{name}.attn.out_proj.bias")
        inner = norm(x, f"{name}.ln_2") @ get(f"{name}.mlp.c_fc.weight").T
        inner = inner + get(f"{name}.mlp.c_fc.bias")
        inner = inner * torch.sigmoid(1.702 * inner)
        x = x + inner @ get(f"{name}.mlp.c_proj.weight").T + get(f"{name}.mlp.c_proj.bias")
    end = norm(x, "ln_final")[ids.argmax()] @ get("text_projection")
    weight, bias = (state[f"text_encoder.text_proj.{part}"] for part in ("weight", "bias"))
    return weight @ end + bias


def test_sentences_become_tokens(state, tmp_path):
    pytest.importorskip("open_clip", reason="needs the extra text")
    torch.save({"net": state}, tmp_path / "sutrack.pth.tar")
    tokens = SentenceEncoder.from_checkpoint(tmp_path / "sutrack.pth.tar")(["a white cat", None])
    assert tokens.shape == (2, 1, DIM) and not tokens.requires_grad
    ids = torch.zeros(77, dtype=torch.long)
    torch.testing.assert_close(tokens[1, 0], by_hand(state, ids), atol=1e-4, rtol=1e-4)
    # CLIP's vocabulary: start, "a", "white", "cat", end
    ids[:5] = torch.tensor([49406, 320, 1579, 2368, 49407])
    torch.testing.assert_close(tokens[0, 0], by_hand(state, ids), atol=1e-4, rtol=1e-4)


def test_a_network_may_take_a_token_wherever_it_is_given_none():
    torch.manual_seed(0)
    sizes = {"dim": 64, "stage_depth": 1, "depth": 4, "template_size": 32, "search_size": 64}
    network = build_network("sutrack_t224", **sizes).eval()
    images, token = (torch.randn(2, 6, 32, 32), torch.randn(2, 6, 64, 64)), torch.randn(1, 1, 64)
    with torch.no_grad():
        without = network(*images)["score_map"]
        given = network(*images, text=token.expand(2, -1, -1))["score_map"]
        network.no_text = token
        default = network(*images)["score_map"]
    assert torch.equal(default, given) and not torch.equal(default, without)
    assert "no_text" not in network.state_dict()


def test_a_file_without_text_encoder_is_refused(tmp_path):
    torch.save({"net": {"decoder.bias": torch.ones(1)}}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="holds no text encoder.*an official SUTrack checkpoint"):
        SentenceEncoder.from_checkpoint(tmp_path / "a.pth")


def test_missing_extra_says_what_to_install(state, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip.tokenizer", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[text\]"'):
        SentenceEncoder(state)
