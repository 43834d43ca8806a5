"""The settings of the paper and of the trackers that it compares with, as recipes."""

from __future__ import annotations

from typing import Any

from ltr_ext.recipe import Recipe

TRAINING_SETS = {"depth": "depthtrack", "thermal": "lasher", "event": "visevent"}
RGB_SETS = ("got10k", "lasot", "trackingnet", "coco")
# Centre and scale jitter by base tracker, where the public code has not OSTrack-256's. For SUTrack,
# which it lacks, that of SUTrack's own training.
JITTER = {"droptrack": (4.5, 0.5), "sutrack": (3.5, 0.5)}


def paper_recipe(base: str, *modalities: str, **changes: Any) -> Recipe:
    """The paper's recipe for the two-branch network on ``base`` (sections III and IV-A.4).

    Args:
        base: an RGB network of the registry; its official checkpoint is expected in
            ``pretrained_dir`` as ``<base>.pth.tar``, or is given by ``base=PATH``.
        modalities: what to train on; more than one makes a tracker for all of them (rgbx).
        changes: other fields.
    """
    family = base.rstrip("0123456789").split("_")[0]
    centre, scale = JITTER.get(family, (3.0, 0.25))
    settings = {
        "network": f"two_branch_{base}",
        "base": f"{base}.pth.tar",
        "datasets": tuple(TRAINING_SETS[modality] for modality in modalities),
        "source": ("lasot", "got10k"),
        "centre_jitter": centre,
        "scale_jitter": scale,
        "precision": "bf16",
        "workers": 8,
    }
    return Recipe(**settings | changes)


def public_recipe(modality: str, **changes: Any) -> Recipe:
    """OSTrack-256 with the learning rates and the budget that the public code intends.

    It sets these rates and then, in a second block, 1e-6 for everything; its budget per modality is
    that of its configurations (batch 80, 20 epochs for depth, 30 for the others; events fall by
    ten after 20).
    """
    settings = {
        "batch_size": 80,
        "epochs": 20 if modality == "depth" else 30,
        "decay": "step" if modality == "event" else "none",
        "decay_at": 2 / 3,
        "lr_groups": (r"backbone\.norm_=1e-6", "patch_embed=5e-5", "fusion=5e-5"),
    }
    return paper_recipe("ostrack256", modality, **settings | changes)


def base_of_peer(network: str) -> str:
    """The RGB network that a peer extends: OSTrack-256, unless the peer's name ends with it."""
    return network.partition("_")[2] or "ostrack256"


def unfrozen_recipe(network: str, *modalities: str) -> Recipe:
    """A network of efficient tuning with its backbone unfrozen, by SRFT (Tables VIII and XII)."""
    base = base_of_peer(network)
    return paper_recipe(base, *modalities, network=network, trainable="peft+backbone")


def peer_recipe(network: str, *modalities: str, **changes: Any) -> Recipe:
    """Efficient tuning, as the peers share it.

    60 epochs of 60 000 samples, a rate that falls after 48, batch 64.
    """
    settings = {
        "network": network,
        "regularizer": "none",
        "trainable": "peft",
        "epochs": 60,
        "samples_per_epoch": 60_000,
        "batch_size": 64,
        "lr": 4e-4,
        "decay": "step",
    }
    return paper_recipe(base_of_peer(network), *modalities, **settings | changes)


def vipt_recipe(modality: str, network: str = "vipt256") -> Recipe:
    """ViPT as its authors train it: 32 samples on each of 2 GPUs."""
    return peer_recipe(network, modality)


def untrack_recipe(*modalities: str, network: str = "untrack256") -> Recipe:
    """UnTrack as its authors train it, on one GPU."""
    if len(modalities) > 1:
        return peer_recipe(network, *modalities, epochs=80, decay_at=0.6, batch_size=48)
    return peer_recipe(network, *modalities, batch_size=64 if "thermal" in modalities else 32)


def sdstrack_recipe(modality: str, network: str = "sdstrack256") -> Recipe:
    """SDSTrack as its authors train it: 16 samples on each of 4 GPUs, a tenth for the last norm."""
    epochs, lr = {"depth": (15, 5e-5), "thermal": (40, 1e-4), "event": (50, 1e-4)}[modality]
    groups = (rf"backbone\.norm\.={lr / 10}",)
    return peer_recipe(network, modality, epochs=epochs, lr=lr, decay="none", lr_groups=groups)


def upvpt_recipe(network: str, base: str, **changes: Any) -> Recipe:
    """UPVPT (section 4.1 of its paper): prompts, MLPs and all outside the backbone, on RGB videos.

    Args:
        network: UPVPT on OSTrack or on SwinTrack.
        base: file of the network that it extends, its backbone that of an image classifier.
        changes: other fields; the defaults are for OSTrack-256.
    """
    settings = {
        "network": network,
        "datasets": RGB_SETS,
        "base": base,
        "regularizer": "none",
        "trainable": "peft+head",
        "epochs": 300,
        "samples_per_epoch": 60_000,
        "batch_size": 64,
        "lr_groups": ("^backbone=1e-5",),
        "decay": "step",
        "precision": "bf16",
        "workers": 8,
    }
    return Recipe(**settings | changes)
