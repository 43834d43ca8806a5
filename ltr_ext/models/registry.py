"""Names of networks, and the one way to build them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace

from srft_plugin.errors import UserError, unknown

from .network import NetworkSpec, TrackingNetwork
from .ostrack import OSTrack, ViTSpec
from .sdstrack import SDSTrack, SDSTrackSpec
from .sutrack import SUTrack, SUTrackSpec, TwoBranchSUTrack
from .swintrack import SwinTrack, SwinTrackSpec
from .two_branch import TwoBranch, TwoBranchSpec
from .untrack import UnTrack, UnTrackSpec
from .upvpt import PROMPTS, UPVPT, UPVPTSpec, UPVPTSwinTrack
from .vipt import ViPT, ViPTSpec

ELIMINATION = (3, 6, 9)  # blocks with candidate elimination in all public ViT-B trackers

_BUNDLED = {  # sizes of the bundled tracker, and of the networks that extend it
    "template_size": 64, "search_size": 128, "dim": 192, "depth": 4, "heads": 3,
    "stem": (32, 64, 96), "head_channels": 64, "drop_path": 0.0,
}  # fmt: skip
_TINY = ViTSpec(name="ostrack_tiny", **_BUNDLED)
_SMALL = ViTSpec(
    name="ostrack_small", template_size=96, search_size=192, dim=256, depth=8, heads=4,
    stem=(32, 64, 128), head_channels=128, drop_path=0.0,
)  # fmt: skip
_OSTRACK256 = ViTSpec(name="ostrack256", template_size=128, search_size=256)
_OSTRACK384 = ViTSpec(name="ostrack384", template_size=192, search_size=384, search_factor=5.0)
# Trained here, or by the peers, for fewer epochs than OSTrack was.
_TUNED = {"eliminate_at": ELIMINATION, "eliminate_during": (4, 20)}
_DROPTRACK384 = replace(_OSTRACK384, name="droptrack384", temporal=True, **_TUNED)
# Those that also read the auxiliary image alone.
_SINGLE = (_TINY, _SMALL, _OSTRACK256, _OSTRACK384, _DROPTRACK384)

_PEER = {"template_size": 128, "search_size": 256, **_TUNED}
_DROPTRACK_PEER = asdict(_DROPTRACK384) | {"in_channels": 6}

# width, depth of the two convolutional stages, depth of the main stage
_ITPN = {"t": (384, 1, 12), "s": (384, 2, 20), "b": (512, 3, 24), "l": (768, 2, 40)}
_SUTRACK = [
    SUTrackSpec(
        name=f"sutrack_{size}{side}",
        template_size=side // 2,
        search_size=side,
        dim=_ITPN[size][0],
        stage_depth=_ITPN[size][1],
        depth=_ITPN[size][2],
    )
    for size, side in (("t", 224), ("s", 224), ("b", 224), ("b", 384), ("l", 224), ("l", 384))
]

_SWINTRACK = (
    SwinTrackSpec(name="swintrack_t224", template_size=112, search_size=224),
    SwinTrackSpec(
        name="swintrack_b384",
        template_size=192,
        search_size=384,
        dim=128,
        depths=(2, 2, 18),
        heads=(4, 8, 16),
        window=12,
        encoder_layers=8,
    ),
)

_NETWORKS: tuple[tuple[type[TrackingNetwork], Iterable[NetworkSpec]], ...] = (
    (
        OSTrack,
        (
            _TINY,
            _SMALL,
            _OSTRACK256,
            replace(_OSTRACK256, name="ostrack256_ce", **_TUNED),
            _OSTRACK384,
            replace(_OSTRACK384, name="ostrack384_ce", **_TUNED),
            _DROPTRACK384,
            *(replace(spec, name=f"{spec.name}_aux", aux_only=True) for spec in _SINGLE),
        ),
    ),
    (TwoBranch, map(TwoBranchSpec.of, _SINGLE)),
    (
        ViPT,
        (
            ViPTSpec(name="vipt256", **_PEER),
            ViPTSpec(name="vipt256_shallow", prompts=1, **_PEER),
            ViPTSpec(**_DROPTRACK_PEER | {"name": "vipt_droptrack384"}),
            ViPTSpec(name="vipt_tiny", prompts=4, **_BUNDLED),
        ),
    ),
    (
        SDSTrack,
        (
            SDSTrackSpec(name="sdstrack256", **_PEER),
            SDSTrackSpec(**_DROPTRACK_PEER | {"name": "sdstrack_droptrack384"}),
            SDSTrackSpec(name="sdstrack_tiny", cross_at=(1, 3), **_BUNDLED),
        ),
    ),
    (
        UnTrack,
        (
            UnTrackSpec(name="untrack256", **_PEER),
            UnTrackSpec(**_DROPTRACK_PEER | {"name": "untrack_droptrack384"}),
            UnTrackSpec(name="untrack_tiny", **_BUNDLED),
        ),
    ),
    (SUTrack, _SUTRACK),
    (TwoBranchSUTrack, [spec.two_branch() for spec in _SUTRACK]),
    (SwinTrack, _SWINTRACK),
    (UPVPT, (UPVPTSpec(name="upvpt_ostrack256", **_PEER | {"eliminate_during": (20, 100)}),)),
    (UPVPTSwinTrack, [replace(s, name=f"upvpt_{s.name}", prompts=PROMPTS) for s in _SWINTRACK]),
)
_BY_NAME = {spec.name: (kind, spec) for kind, specs in _NETWORKS for spec in specs}


def register_network(kind: type[TrackingNetwork], spec: NetworkSpec) -> None:
    """Makes a network of one's own known by ``spec.name`` to recipes, checkpoints and trackers.

    Args:
        kind: its class, called with the spec.
        spec: its sizes and name.

    Raises:
        UserError: the name is that of another network.
    """
    if _BY_NAME.setdefault(spec.name, (kind, spec)) != (kind, spec):
        raise UserError(f"a network called {spec.name} exists already; choose another name")


def network_names() -> list[str]:
    """All names that ``build_network`` takes."""
    return list(_BY_NAME)


def network_spec(name: str) -> NetworkSpec:
    """Spec of the network ``name``, without building it; see ``build_network``."""
    return _entry(name)[1]


def build_network(name: str, **changes: object) -> TrackingNetwork:
    """A new network with random weights.

    Args:
        name: one of ``network_names()``.
        changes: fields of its spec to replace, for example ``drop_path=0.0``.

    Raises:
        UserError: unknown name (the nearest is suggested), or sizes that do not fit.
    """
    kind, spec = _entry(name)
    return kind(replace(spec, **changes))


def _entry(name: str) -> tuple[type[TrackingNetwork], NetworkSpec]:
    if name not in _BY_NAME:
        raise unknown("network", name, _BY_NAME)
    return _BY_NAME[name]
