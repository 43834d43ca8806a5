"""Parameter sets of the ``srft`` tracker, one module per name, and the look-up by name.

A name is a module of this package (``default_rgb``) or a training run: then the network that it
left in the workspace is taken.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ltr_ext.admin.environment import default_device, remedy
from ltr_ext.models.checkpoint import load_network
from ltr_ext.models.sutrack import SUTrack
from ltr_ext.models.swintrack import SwinTrack
from srft_plugin.errors import UserError, unknown

# Where a base tracker's test protocol differs from OSTrack's, by its authors' settings.
PROTOCOLS: tuple[tuple[type, dict[str, Any]], ...] = (
    (SwinTrack, {"window_weight": 0.49}),
    (SUTrack, {"update_interval": 25, "update_confidence": 0.7}),
)


@dataclass
class TrackerParameters:
    """What a tracker is made from. pytracking adds attributes of its own (``debug``, ...).

    Attributes:
        network: in eval mode on ``device``; shared by all trackers of the process.
        checkpoint: the file of its weights.
        device: where it runs.
        window_weight: None multiplies the score map by the Hann window; a number mixes them.
        margin: least side of a reported box in pixels, and least overlap with the frame.
        update_interval: every so many frames a confident frame becomes the newest template of a
            network with several templates; None keeps the first one.
        update_confidence: what confident means.
        precision: number format of the engine (``pytracking_ext.engine``) that stands in for the
            network; None runs the network as it is.
    """

    network: nn.Module
    checkpoint: Path
    device: str = "cpu"
    window_weight: float | None = None
    margin: float = 10.0
    update_interval: int | None = None
    update_confidence: float = 0.7
    precision: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What, beside the weights, decides the results."""
        names = ("window_weight", "margin", "update_interval", "update_confidence", "precision")
        return {name: getattr(self, name) for name in names}

    def get(self, name: str, default: Any = None) -> Any:
        """Attribute ``name``, or ``default`` where there is none."""
        return getattr(self, name, default)


def load(
    name: str,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    precision: str | None = None,
) -> TrackerParameters:
    """The parameter set ``name``.

    Args:
        name: a module of this package or a training config.
        checkpoint: weights to use instead of those that the name stands for. A module's settings
            stay; any other name is then only a name for the results.
        device: a torch device.
        precision: runs the network in the engine, in this number format.

    Raises:
        UserError: no such name (the nearest ones are suggested), or the weights are missing.
    """
    if name in module_names():
        module = importlib.import_module(f"{__name__}.{name}")
        parameters = module.parameters(device=device, checkpoint=checkpoint)
    elif checkpoint is not None:
        parameters = from_checkpoint(checkpoint, device)
    else:
        parameters = trained(name, device)
    return parameters if precision is None else in_engine(parameters, precision)


def in_engine(parameters: TrackerParameters, precision: str) -> TrackerParameters:
    """The same tracker with the engine (``pytracking_ext.engine``) in place of its network.

    Returns:
        Its ``precision`` is what it runs in: float32 where the device lacks the one asked for.

    Raises:
        UserError: unknown precision, or it runs in an engine already.
    """
    from pytracking_ext.engine import PRECISIONS  # only where it is asked for
    from pytracking_ext.engine.recall import version

    if parameters.precision is not None:
        raise UserError(
            f"{parameters.checkpoint} runs in the engine already, in {parameters.precision}; load "
            "it without precision first"
        )
    network = parameters.network
    weights = tuple((v, version(v)) for v in (*network.parameters(), *network.buffers()))
    engine = _engine(network, weights, precision)
    usable = next(name for name, dtype in PRECISIONS.items() if dtype == engine.dtype)
    return replace(parameters, network=engine, precision=usable)


def from_checkpoint(
    checkpoint: str | Path, device: str = "cpu", **settings: Any
) -> TrackerParameters:
    """Parameters for the network in ``checkpoint``; the weights are read once per process.

    The protocol is that of the base tracker: OSTrack multiplies score and window, SwinTrack mixes
    them, SUTrack also renews its second template. ``settings`` override it; they are fields of
    :class:`TrackerParameters`.
    """
    path = Path(checkpoint).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"no network at {path}; give a .safetensors or .pth.tar file")
    network = _network(path, path.stat().st_mtime_ns, device)
    protocol = next((p for kind, p in PROTOCOLS if isinstance(network, kind)), {})
    return TrackerParameters(
        network=network, checkpoint=path, device=device, **(protocol | settings)
    )


def trained(config: str, device: str | None = None) -> TrackerParameters:
    """The network that the last training of ``config`` left in the workspace."""
    return from_checkpoint(trained_network(config), device or default_device())


def module_names() -> list[str]:
    """Names of the parameter modules in this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def trained_network(config: str) -> Path:
    """The network that the last training of ``config`` left in the workspace.

    Raises:
        UserError: there is none; says whether the name is wrong or the training is missing.
    """
    from ltr_ext.recipe import config_names  # the whole trainer: only where it is needed
    from ltr_ext.run_training import NETWORK, run_dir

    network = run_dir(config) / NETWORK
    if network.is_file():
        return network
    if config in config_names():
        raise UserError(
            f"config {config!r} has not left {network} yet; run `srft train {config}`, or give "
            f"--checkpoint. If it was trained in another folder, {remedy('workspace_dir')}"
        )
    raise unknown("tracker parameters", config, sorted({*module_names(), *config_names()}))


@functools.lru_cache(maxsize=4)
def _network(path: Path, modified_ns: int, device: str) -> nn.Module:
    """Network of a file; ``modified_ns`` makes an overwritten file a new one."""
    return load_network(path).to(device).eval()


@functools.lru_cache(maxsize=4)
def _engine(network: nn.Module, weights: tuple, precision: str) -> nn.Module:
    """Engine of a network; ``weights``, buffers too, makes one that has changed a new one."""
    from pytracking_ext.engine import Engine

    return Engine(network, precision)
