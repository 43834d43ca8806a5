"""Where the user keeps things: data sets, workspace, results.

Looked up in this order: the environment variable ``SRFT_<KEY>`` (``SRFT_DEPTHTRACK_DIR``), the
user's pytracking checkout (``ltr/admin/local.py``, when SRFT runs inside one), and the file that
``srft env set KEY PATH`` writes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ltr_ext.admin.files import write_text
from srft_plugin.errors import UserError, unknown

DATASETS = (
    "depthtrack",
    "cdtb",
    "vot_rgbd2022",
    "lasher",
    "gtot",
    "rgbt234",
    "visevent",
    "coesot",
    "fe108",
    "lasot",
    "got10k",
    "trackingnet",
    "coco",
    "otb",
    "uav123",
    "tnl2k",
)
KEYS = ("workspace_dir", "results_dir", "pretrained_dir", *(f"{name}_dir" for name in DATASETS))


def settings_file() -> Path:
    """The file that ``srft env set`` writes: ``$SRFT_HOME/env.json``, else ``~/.config/srft``."""
    home = os.environ.get("SRFT_HOME") or Path.home() / ".config" / "srft"
    return Path(home) / "env.json"


def read_settings() -> dict[str, str]:
    """What the settings file holds; empty when there is none.

    Raises:
        UserError: the file is not a JSON object of texts.
    """
    file = settings_file()
    if not file.exists():
        return {}
    try:
        settings = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}); repair or delete it") from error
    if not isinstance(settings, dict) or not all(isinstance(v, str) for v in settings.values()):
        raise UserError(f"{file}: expected a JSON object of paths; repair or delete it")
    return settings


def set_path(key: str, path: str | Path) -> Path:
    """Stores one path, absolute, and returns the settings file.

    Raises:
        UserError: ``key`` is not one of ``KEYS``.
    """
    if key not in KEYS:
        raise unknown("setting", key, KEYS)
    file = settings_file()
    settings = read_settings() | {key: str(Path(path).expanduser().resolve())}
    write_text(file, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    return file


HOST_MODULE = "ltr.admin.local"  # the file of paths of a pytracking checkout


def _host_module() -> ModuleType | None:
    """The host's ``ltr/admin/local.py``, where we run inside a pytracking checkout that has one."""
    if HOST_MODULE not in sys.modules and "ltr" in sys.modules:  # its trackers do not import it
        if not (find_spec("ltr.admin") and find_spec(HOST_MODULE)):
            return None
        import_module(HOST_MODULE)
    return sys.modules.get(HOST_MODULE)


def _from_pytracking(key: str) -> str | None:
    """The value in the host's ``ltr/admin/local.py``, when we run inside a pytracking checkout."""
    local = _host_module()
    if local is None:
        return None
    settings = local.EnvironmentSettings()
    if key == "pretrained_dir":  # by its name there, which is preset, to a folder or to none
        named = getattr(settings, "pretrained_networks", "")
        return named if named and Path(named).is_dir() else None
    value = getattr(settings, key, None) or None
    if key == "got10k_dir" and value and Path(value).name == "train":
        return str(Path(value).parent)  # there, it is the folder of the training part
    return value


def lookup(key: str) -> str | None:
    """The path called ``key`` (one of ``KEYS``) as the user gave it; None where it is not set."""
    return (
        os.environ.get(f"SRFT_{key.upper()}") or _from_pytracking(key) or read_settings().get(key)
    )


def remedy(key: str) -> str:
    """Where to set ``key``: what sets it now, or else the host's file, or ours."""
    variable, name = f"SRFT_{key.upper()}", key
    if variable in os.environ:
        return f"correct the environment variable {variable}"
    local = _host_module()
    if local is not None and (_from_pytracking(key) or key not in read_settings()):
        name = "pretrained_networks" if key == "pretrained_dir" else key
        return f"set self.{name} in {getattr(local, '__file__', HOST_MODULE)}"
    return f"run `srft env set {key} PATH`, which writes {settings_file()}"


class Environment:
    """The paths of this user; every property looks the setting up when it is read."""

    @property
    def workspace_dir(self) -> Path:
        """Folder for checkpoints and logs; ``./runs`` unless set."""
        return Path(lookup("workspace_dir") or "runs").expanduser().resolve()

    @property
    def results_dir(self) -> Path:
        """Folder for tracking results; ``<workspace>/results`` unless set."""
        return Path(lookup("results_dir") or self.workspace_dir / "results").expanduser().resolve()

    @property
    def pretrained_dir(self) -> Path:
        """Folder of the base trackers' checkpoints; ``<workspace>/pretrained`` unless set."""
        return Path(lookup("pretrained_dir") or self.workspace_dir / "pretrained").expanduser()

    def get(self, dataset: str) -> Path:
        """Root folder of a data set.

        Raises:
            UserError: there is no such data set, the path is not set, or the folder is not there.
        """
        if dataset not in DATASETS:
            raise unknown("data set", dataset, DATASETS)
        key = f"{dataset}_dir"
        value = lookup(key)
        if value is None:
            raise UserError(
                f"the path of data set {dataset!r} is not set; {remedy(key)}, or set the "
                f"environment variable SRFT_{key.upper()}"
            )
        path = Path(value).expanduser()
        if not path.is_dir():
            raise UserError(f"data set {dataset!r}: {path} is not a folder; {remedy(key)}")
        return path


def environment() -> Environment:
    """The paths of this user."""
    return Environment()


def device_name(text: str) -> str:
    """Type of arguments that name a torch device on which this machine can compute."""
    try:
        check_device(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def check_device(text: str) -> None:
    """Raises UserError unless ``text`` names a torch device on which this machine can compute."""
    import torch

    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise UserError(
            f"found {text!r}, expected a device of torch such as cpu or cuda:0"
        ) from error
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise UserError(f"found {text!r}, but torch can use {gpus} GPUs here")
    if device.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=device).cpu()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"torch cannot compute on {text!r} here: {reason}") from error


def default_device() -> str:
    """The GPU of this process, else the CPU.

    torchrun numbers the processes of a machine; the workers of pytracking's ``--threads`` are
    numbered by their pool.
    """
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    worker = multiprocessing.current_process()._identity
    index = int(os.environ.get("LOCAL_RANK", worker[0] - 1 if worker else 0))
    return f"cuda:{index % torch.cuda.device_count()}"
