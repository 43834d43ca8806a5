"""The model behind scaling.py: what a training step asks for, and how long a machine takes for it.

FLOPs, kernels, activations and parameters are counted on the recipe's own network; nothing is
computed. What the machine can do is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from common import noise_batch  # beside this file
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ltr_ext.actors.tracking import TrackingActor
from ltr_ext.models.registry import build_network
from ltr_ext.recipe import Recipe
from ltr_ext.trainers.preparation import blocks, prepare
from ltr_ext.trainers.processes import Processes
from srft_plugin.errors import UserError
from srft_plugin.groups import operation_groups
from srft_plugin.ranking import TOGETHER
from srft_plugin.tuning.trainable import select_trainable

MODALITIES = ("depth", "thermal", "event")
FLOAT = 4  # bytes of a weight, a gradient, a moment, and of what processes exchange
UPDATE = 52  # bytes per trained element: AdamW and SRFT 28, clipping 12, copies in bf16 12
BUCKET = 25 * 2**20  # bytes that DDP reduces at once
RESERVE = 0.1  # share of the memory for all that is not counted
COUNTED = 8  # samples of the batch that is counted


def assumed(text: str) -> float:
    return field(metadata={"help": text})


@dataclass(frozen=True)
class Machine:
    """What is assumed of the GPUs, their nodes and the hosts."""

    peak: float = assumed("dense bf16 products of a GPU, FLOP/s")
    utilisation: float = assumed("share of the peak that forward and backward pass reach")
    bandwidth: float = assumed("memory of a GPU, bytes/s that the update reaches")
    memory: float = assumed("memory of a GPU, bytes")
    node: float = assumed("GPUs in a node")
    node_link: float = assumed("bus bandwidth of an all-reduce inside a node, bytes/s")
    net_link: float = assumed("the same between nodes, bytes/s of a whole node")
    latency: float = assumed("of a collective operation, seconds")
    overlap: float = assumed("share of the backward pass that communication can hide behind")
    launch: float = assumed("of a kernel by the host, seconds")
    update_kernels: float = assumed("of SRFT's step, per trained tensor")
    cores: float = assumed("cores that prepare data, per GPU")
    depth: float = assumed("RGB-D pairs per second and core")
    thermal: float = assumed("RGB-T pairs per second and core")
    event: float = assumed("RGB-E pairs per second and core")
    speed: float = assumed("frames per second and GPU of an evaluation")
    price: float = assumed("of a GPU for an hour, with its share of the node, dollars")


HOST = {
    "latency": 50e-6, "overlap": 0.8, "launch": 8e-6, "update_kernels": 8, "cores": 8,
    "depth": 132, "thermal": 246, "event": 367, "speed": 25, "node": 8,
}  # fmt: skip
MACHINES = {
    "h100": Machine(peak=989e12, utilisation=0.3, bandwidth=2.5e12, memory=80e9,
                    node_link=300e9, net_link=100e9, price=2.5, **HOST),
    "3090ti": Machine(peak=80e12, utilisation=0.4, bandwidth=0.8e12, memory=24e9,
                      node_link=10e9, net_link=2.5e9, price=0.3, **HOST),
}  # fmt: skip
FRAMES = {"depth": 76_000, "thermal": 221_000, "event": 145_000}  # of the test sets, about


@dataclass(frozen=True)
class Work:
    """What a recipe's step asks for: counts of a sample, kernels of a pass, tensors, elements."""

    flops: float  # of a sample, forward and backward
    activations: float  # bytes kept for the backward pass, per sample
    kernels: int  # that a forward and backward pass launches, whatever the batch
    tensors: int  # that train
    operations: int  # that SRFT ranks them in
    trained: int  # elements
    total: int  # elements, frozen ones included
    units: int  # that FSDP gathers one by one

    def state(self, shares: int = 1) -> float:
        """Bytes per GPU of weights, gradients and AdamW's moments, divided among ``shares``."""
        return FLOAT * (self.total + 3 * self.trained) / shares


@dataclass(frozen=True)
class Step:
    """Seconds of a training step and of its parts."""

    parts: int  # that the batch is computed in
    compute: float  # passes and update on the device
    host: float  # launching their kernels
    exchange: float  # all-reduce, or FSDP's gathers and scatters, alone
    exposed: float  # of it, what the backward pass does not hide
    data: float  # preparing the batch
    moved: float  # bytes that a GPU sends

    @property
    def seconds(self) -> float:
        """Data are prepared meanwhile; kernels are launched ahead of the device."""
        return max(max(self.compute, self.host) + self.exposed, self.data)

    @property
    def limit(self) -> str:
        """What takes longest."""
        names = {"compute": "compute", "host": "launches", "exchange": "exchange", "data": "data"}
        return names[max(names, key=lambda name: getattr(self, name))]


class KernelCounter(TorchDispatchMode):
    """Counts operations that are not views: about what a GPU's host launches."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = [value.alias_info for value in func._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in returned)
        self.count += func.namespace == "aten" and not view
        return func(*args, **(kwargs or {}))


def count(recipe: Recipe) -> Work:
    """Counts a forward and backward pass in bfloat16 on fake tensors, and the parameters."""
    with torch.device("meta"):
        network = build_network(recipe.network).train()
    select_trainable(network, recipe.trainable)
    actor = TrackingActor(prepare(network, recipe, torch.device("meta"), Processes()))
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    flops = FlopCounterMode(display=False, custom_mapping={
        attention: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
            lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v),
    })  # fmt: skip
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        network.to_empty(device="cpu")
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        shapes = noise_batch(network.spec, COUNTED, "meta")
        batch = {name: torch.empty_like(v, device="cpu") for name, v in shapes.items()}
        with KernelCounter() as kernels, flops, saved_tensors_hooks(keep, lambda saved: saved):
            with torch.autocast("cpu", torch.bfloat16):
                loss, _ = actor(batch)
            loss.backward()
    parameters = list(network.parameters())
    for parameter in parameters:
        kept.pop(parameter.untyped_storage()._cdata, None)
    trained = {name: p.numel() for name, p in network.named_parameters() if p.requires_grad}
    operations = operation_groups(network).values()
    return Work(
        flops.get_total_flops() / COUNTED,
        sum(storage.nbytes() for storage in kept.values()) / COUNTED,
        kernels.count,
        len(trained),
        sum(not trained.keys().isdisjoint(members) for members in operations),
        sum(trained.values()),
        sum(p.numel() for p in parameters),
        1 if getattr(network.spec, "eliminate_at", ()) else 1 + len(blocks(network)),
    )


def step(
    work: Work, machine: Machine, gpus: int, batch: int, modality: str = "depth", fsdp: bool = False
) -> Step:
    """Seconds of a step of ``batch`` samples over ``gpus``.

    Ring all-reduce: every GPU sends 2(n-1)/n of the gradient, hidden behind the backward pass of
    the last part. FSDP: (n-1)/n of the weights twice for each part, hidden behind both passes, and
    of the gradient once; SRFT's counts are reduced afterwards, for ``TOGETHER`` operations at once.

    Raises:
        UserError: a sample does not fit the memory.
    """
    share, shares = batch // gpus, gpus if fsdp else 1
    room = machine.memory * (1 - RESERVE) - work.state(shares)
    parts = next((n for n in range(1, share + 1)
                  if share % n == 0 and share // n * work.activations <= room), None)  # fmt: skip
    if parts is None:
        raise UserError(
            f"memory {machine.memory / 1e9:.0f} GB: a sample needs {work.activations / 1e9:.1f} GB "
            f"beside {work.state(shares) / 1e9:.1f} GB of state; try --recompute"
        )
    passes = share * work.flops / (machine.peak * machine.utilisation)
    launches = parts * work.kernels * machine.launch
    update = UPDATE * work.trained / shares / machine.bandwidth
    around = (gpus - 1) / gpus
    if fsdp:
        moved = around * FLOAT * (2 * parts * work.total + work.trained)
        collectives, hiding = (2 * parts + 1) * work.units, 1.0
        after = math.ceil(work.operations / TOGETHER) * machine.latency * (gpus > 1)
    else:
        moved = around * FLOAT * 2 * work.trained
        collectives, hiding = math.ceil(FLOAT * work.trained / BUCKET), 2 / 3 / parts
        after = 0.0
    link = min(machine.node_link, machine.net_link if gpus > machine.node else math.inf)
    exchange = (moved / link + collectives * machine.latency) * (gpus > 1)
    hidden = machine.overlap * hiding * max(passes, launches)
    return Step(
        parts,
        passes + update,
        launches + machine.update_kernels * work.tensors * machine.launch,
        exchange + after,
        max(exchange - hidden, 0.0) + after,
        share / (machine.cores * getattr(machine, modality)),
        moved,
    )
