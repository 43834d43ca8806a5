"""One of two processes: `python parallel_worker.py RANK FOLDER`. Run by test_parallel.py."""

import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

import srft_plugin.kernels
import srft_plugin.ranking
from srft_plugin import SRFT, UserError, bind_operations, estimate_prior
from srft_plugin.transfer import histograms

STEPS = 3


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 3)).double()


def make_batch(seed: int) -> Tensor:
    return torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)).double()


def losses(network: nn.Module, x: Tensor) -> Tensor:
    return network(x).square().sum(1)


class Branching(nn.Module):
    """Each sign of the first number takes layers and parameters of its own, as modalities may."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(8, 6)
        self.branches = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.tokens = nn.ParameterList(torch.randn(1, 6) for _ in range(2))
        self.last = nn.Linear(6, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        side = int(x[0, 0] > 0)
        y = (self.first(x) + self.tokens[side]).tanh()
        return self.last(self.branches[side](y))


def make_signed_batch(seed: int) -> Tensor:
    """A batch whose halves begin with numbers of different signs."""
    batch = make_batch(seed)
    batch[[0, 4], 0] = torch.tensor([1.0, -1.0]).double()
    return batch


def wrap(network: nn.Module, fused: bool = False) -> SRFT:
    srft_plugin.ranking.EXACT_ELEMENTS = 0  # sharded operations are never sorted
    srft_plugin.kernels.compiled = lambda function: function  # the same numbers, at once
    shutil.which = lambda name: name  # which takes no compiler
    inner = AdamW(network.parameters(), lr=1e-2)
    operations = bind_operations(network)
    return SRFT(inner, operations, STEPS, mode="transfer", ranking="histogram", fused=fused)


def train(network: nn.Module, rank: int = 0, size: int = 1) -> dict[str, Tensor]:
    """Weights after training on this process's share of each batch."""
    optimizer = wrap(network)
    for seed in range(STEPS):
        optimizer.zero_grad()
        losses(network, make_batch(seed).chunk(size)[rank]).mean().backward()
        optimizer.step()
    return network.state_dict()


def train_sharded(rank: int, fused: bool) -> dict[str, Tensor]:
    """As ``train``, with weights sharded by rows, or columns, over the processes."""
    network, plain = make_network(), make_network()
    mesh = init_device_mesh("cpu", (2,))
    placements = {"0.weight": [Shard(1)], "2.bias": [Replicate()]}
    for name, p in list(network.named_parameters()):
        sharded = distribute_tensor(p.detach(), mesh, placements.get(name, [Shard(0)]))
        owner, _, key = name.rpartition(".")
        setattr(network.get_submodule(owner), key, nn.Parameter(sharded))
    optimizer = wrap(network, fused)
    for seed in range(STEPS):
        whole = {name: p.full_tensor() for name, p in network.named_parameters()}
        plain.load_state_dict(whole)
        plain.zero_grad()
        losses(plain, make_batch(seed)).mean().backward()
        for p, q in zip(network.parameters(), plain.parameters(), strict=True):
            p.grad = distribute_tensor(q.grad, mesh, p.placements)
        optimizer.step()
    return {name: p.full_tensor().detach() for name, p in network.named_parameters()}


def counts_of_shards(rank: int) -> dict[str, Tensor | str]:
    """Histograms of the numbers 1 to 8, shared in ways that sharding on two axes brings about."""
    mesh = init_device_mesh("cpu", (2,))
    found: dict[str, Tensor | str] = {}
    for name, placement in (("strided", _StridedShard(0, split_factor=2)), ("partial", Partial())):
        part = torch.arange(1.0, 9.0).chunk(2)[rank]
        p = nn.Parameter(DTensor.from_local(part, mesh, [placement]))
        p.grad = p.detach().clone()
        operation = srft_plugin.ranking.Operation([p], 0.0)
        try:
            (found[name],) = srft_plugin.ranking._counts([operation], False, histograms)
        except UserError as error:
            found[name] = str(error)
    return found


def main(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    data_parallel = train(DistributedDataParallel(make_network()), rank, 2)
    share = [make_batch(seed).chunk(2)[rank] for seed in range(2)]
    prior = estimate_prior(make_network(), losses, share, top_k=6, distributed=True)
    signed = [make_signed_batch(seed).chunk(2)[rank] for seed in range(2)]
    branching = [
        estimate_prior(Branching(), losses, signed[:n], top_k=6, distributed=True).spectra
        for n in (1, 2)
    ]
    result = {
        "ddp": data_parallel,
        "counts": counts_of_shards(rank),
        "prior of branches": branching,
        "sharded": train_sharded(rank, fused=False),
        "sharded, fused": train_sharded(rank, fused=True),
        "prior": prior.spectra,
    }
    torch.save(result, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
