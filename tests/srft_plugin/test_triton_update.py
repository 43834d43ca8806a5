"""The Triton kernels against the reference: on a GPU, or without one in Triton's interpreter."""

import sys

import pytest
import torch
from torch.optim import AdamW

from srft_plugin import SRFT, UserError, kernels
from srft_plugin.reference import srft_step_reference
from srft_plugin.transfer import BINS, histogram, percentile_rank, sample

from .small import bound_to, groups_of, rank_of_bins, small_network

pytest.importorskip("triton", reason="Triton is not part of this torch")
from srft_plugin import triton_update

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 100


@pytest.fixture(autouse=True)
def by_triton(monkeypatch):
    monkeypatch.setattr(kernels, "is_on_gpu", lambda p: True)
    # several programs for a tensor, and a last one that is not full
    monkeypatch.setattr(triton_update, "UPDATED", 32)
    monkeypatch.setattr(triton_update, "COMPARED", 16)


def set_gradients(network, seed):
    """Ties and zeros among them; the same in every precision."""
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        gradient = torch.randn(p.shape, generator=generator)
        gradient = gradient.round() if seed % 2 else gradient
        p.grad = gradient.to(p.device, p.dtype)


@pytest.mark.parametrize(
    ("mode", "table"), [("both", True), ("both", False), ("prior", True)],
    ids=["by table", "by rank", "prior alone"],
)  # fmt: skip
def test_a_hundred_steps_equal_the_reference(monkeypatch, mode, table):
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0 if table else 1 << 12)
    fast, slow = small_network().to(DEVICE), small_network().to(DEVICE, torch.float64)
    wrapped = SRFT(AdamW(groups_of(fast)), bound_to(fast), STEPS, mode=mode, fused=True)
    plain = AdamW(groups_of(slow))
    operations = bound_to(slow).partition(slow.parameters())
    stepped = []
    update = triton_update.update
    monkeypatch.setattr(
        triton_update, "update", lambda o, *rest: stepped.append(len(o)) or update(o, *rest)
    )
    for step in range(1, STEPS + 1):
        for network in (fast, slow):
            set_gradients(network, step)
        wrapped.step()
        if mode == "prior":
            srft_step_reference(plain, operations, 0, STEPS, kappa=1.0)
        else:
            rank = rank_of_bins if table else percentile_rank
            srft_step_reference(plain, operations, step, STEPS, rank=rank)
    assert stepped == [3] * (STEPS - 1)  # all, but for the step that makes AdamW's state
    for p, q in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(p.double(), q, rtol=1e-6, atol=1e-6)
        for key in ("exp_avg", "exp_avg_sq"):
            found, expected = wrapped.state[p][key].double(), plain.state[q][key]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_weights_written_by_address_count_as_changed():
    network = small_network().to(DEVICE)
    optimizer = SRFT(AdamW(network.parameters()), bound_to(network), 5, fused=True)
    for seed in range(2):
        set_gradients(network, seed)
        loss = sum(p.square().sum() for p in network.parameters())
        before = [p._version for p in network.parameters()]
        optimizer.step()
        assert all(p._version > v for p, v in zip(network.parameters(), before, strict=True))
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_step_that_is_flagged_leaves_all_as_it_is():
    network = small_network().to(DEVICE)
    inner = AdamW(network.parameters(), lr=0.1)
    optimizer = SRFT(inner, bound_to(network), 5, fused=True)
    set_gradients(network, 0)
    optimizer.step()
    before = [[t.clone() for t in (p, *optimizer.state[p].values())] for p in network.parameters()]
    for p in network.parameters():
        p.grad.fill_(float("nan"))
    inner.found_inf = torch.ones((), device=DEVICE)
    optimizer.step()
    after = [[p, *optimizer.state[p].values()] for p in network.parameters()]
    for found, expected in zip(after, before, strict=True):
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("elements", [1, 2500, 70_000])
def test_histograms_are_those_of_torch(elements):
    parts = [torch.randn(size, device=DEVICE) for size in (elements, 3, 50)]
    strided = [sample(part.view(-1, 1), elements) for part in parts]
    found = triton_update.histograms(list(zip(strided, (0, 0, 2), strict=True)), 4)
    none = torch.zeros(BINS, dtype=torch.int64, device=DEVICE)
    both = histogram(strided[0]) + histogram(strided[1])
    assert torch.equal(found.long(), torch.stack([both, none, histogram(strided[2]), none]))


def test_what_the_kernels_cannot_step_takes_the_general_path(monkeypatch):
    """Half precision, an address that is no multiple of 16, a large operation to be sorted."""
    monkeypatch.setattr(triton_update, "update", None)  # must not be called
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 1)
    odd = torch.randn(41, device=DEVICE)[1:].requires_grad_()
    half = torch.randn(40, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    for p, ranking in ((odd, "sampled"), (half, "sampled"), (odd.detach().clone(), "exact")):
        p.requires_grad_()
        optimizer = SRFT(AdamW([p]), None, 3, mode="transfer", ranking=ranking, fused=True)
        for _ in range(2):
            p.grad = torch.ones_like(p)
            optimizer.step()


def test_processes_agree_on_what_the_kernels_step_also_where_their_part_is_empty():
    """FSDP's gradients are parts of one buffer; an operation's histogram is a sum over all."""
    buffer = torch.zeros(16, device=DEVICE)
    for start, accepted in ((0, True), (1, False), (4, True)):
        for length in (0, 3):
            part = buffer.as_strided((length,), (1,), start)
            assert triton_update.accepts([part]) == accepted


@pytest.fixture
def asked_anew():
    kernels.triton_lacks.cache_clear()
    yield
    kernels.triton_lacks.cache_clear()


def test_a_machine_without_triton_is_told(monkeypatch, asked_anew):
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs Triton on a GPU.*leave fused out"):
        SRFT(AdamW(small_network().to(DEVICE).parameters()), None, 5, mode="transfer", fused=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Triton brings its compiler there")
def test_a_machine_without_what_triton_compiles_with_is_told(monkeypatch, asked_anew):
    monkeypatch.setattr(kernels.sysconfig, "get_path", lambda *names: "nowhere")
    assert "Python.h for Triton; install Python's headers" in kernels.triton_lacks()
    kernels.triton_lacks.cache_clear()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(kernels.shutil, "which", lambda name: None)
    assert "a C compiler for Triton; install gcc" in kernels.triton_lacks()


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from srft_plugin import triton_update

KINDS = {"blocks": "*i32", "counts": "*i32", "scale": "fp32", "BLOCK": "constexpr"} | dict.fromkeys(
    ("tensors", "operations", "gradients"), "*i64")
kernels = {"update_by_table": 1024, "update_by_rank": 64, "count": 1024}
for name, block in kernels.items():
    kernel = getattr(triton_update, name)
    signature = {argument: KINDS.get(argument, "*fp32") for argument in kernel.arg_names}
    source = ASTSource(kernel, signature, {"BLOCK": block})
    for capability in (80, 90):
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        print(name, capability, len(made.asm["cubin"]), "v4" in made.asm["ptx"])
"""


def test_the_kernels_compile_for_gpus_that_are_not_there(compiling):
    """What the interpreter takes, the compiler need not."""
    lines = compiling(COMPILE)
    assert len(lines) == 6 and all(int(size) > 0 for _, _, size, _ in lines)
    assert all(vectors == "True" for name, _, _, vectors in lines if name == "update_by_table")
