"""`srft link`, `srft unlink`, `srft doctor`: SRFT in a pytracking checkout, and what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
from pathlib import Path

from srft_plugin.errors import UserError
from srft_plugin.link import SHIMS, link, linked, unlink

PACKAGES = {  # distribution: what it is needed for, and the extra that brings it
    "torch": ("everything", ""),
    "timm": ("ViT blocks", ""),
    "opencv-python": ("images", ""),
    "safetensors": ("weights", ""),
    "vot-toolkit": ("srft vot, srft demo", "vot"),
    "vot-trax": ("srft vot, srft demo", "vot"),
    "aedat": ("event streams, .aedat4", "events"),
    "h5py": ("event streams, HDF5", "events"),
    "simplejpeg": ("reading JPEG no further than needed", "fast"),
    "isal": ("reading depth PNG sooner", "fast"),
    "onnx": ("srft export", "export"),
    "onnxscript": ("srft export", "export"),
    "onnxruntime": ("tracking with an exported file", "export"),
    "scipy": ("srft study", "study"),
    "open_clip_torch": ("sentences for SUTrack", "text"),
}
HOST_PATHS = ("ltr/admin/local.py", "pytracking/evaluation/local.py")
NOT_SET = "not set"
WRONG = "wrong"


def add_commands(subparsers) -> None:
    """Mounts the sub-commands on the `srft` parser."""
    for name, command, text in (
        ("link", _link, "make SRFT known to a pytracking checkout"),
        ("unlink", _unlink, "undo `srft link`"),
    ):
        parser = subparsers.add_parser(name, help=text, description=command.__doc__)
        parser.add_argument("checkout", type=Path, help="folder of the pytracking checkout")
        parser.set_defaults(run=command)
    doctor = subparsers.add_parser(
        "doctor", help="what is installed, set and linked", description=_doctor.__doc__
    )
    doctor.add_argument("checkout", type=Path, nargs="?", help="a pytracking checkout to look at")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)


def _link(arguments: argparse.Namespace) -> int:
    """Write five untracked files into a pytracking checkout, so that its commands find SRFT."""
    written = link(arguments.checkout.resolve())
    for path in written:
        print(f"written: {path}")
    print("linked" if written else "linked already; nothing to do")
    print(f"next: srft doctor {arguments.checkout}")
    return 0


def _unlink(arguments: argparse.Namespace) -> int:
    """Remove what `srft link` wrote."""
    for path in unlink(arguments.checkout.resolve()):
        print(f"removed: {path}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    """Show versions, GPU, paths and links, and what to do about what is missing; 1 if what was set
    or given is wrong."""
    checks = [*_packages(), *_device(), *_paths(), *_checkout(arguments.checkout)]
    if arguments.json:
        rows = [dict(zip(("check", "found", "remedy"), check, strict=True)) for check in checks]
        print(json.dumps(rows, indent=2))
    else:
        unset = [name for name, found, _ in checks if found == NOT_SET]
        shown = [check for check in checks if check[0] not in unset]
        if unset:
            shown.append((NOT_SET, ", ".join(unset), "srft env set KEY PATH for those you use"))
        width = max(len(name) for name, _, _ in shown)
        for name, found, remedy in shown:
            print(f"{name:<{width}}  {found}" + (f"  -> {remedy}" if remedy else ""))
    return int(any(found == WRONG for _, found, _ in checks))


Check = tuple[str, str, str]  # what was looked at, what was found, what to do about it ("": fine)


def _packages() -> list[Check]:
    checks = [("system", platform.platform(), ""), ("python", platform.python_version(), "")]
    for name, (purpose, extra) in {"srft": ("this project", ""), **PACKAGES}.items():
        try:
            checks.append((name, importlib.metadata.version(name), ""))
        except importlib.metadata.PackageNotFoundError:
            how = f' with pip install -e ".[{extra}]"' if extra else ""
            checks.append((name, "missing", f"install it{how}; needed for {purpose}"))
    return checks


def _device() -> list[Check]:
    import torch

    from srft_plugin.kernels import triton_lacks

    if not torch.cuda.is_available():
        return [("GPU", f"none ({torch.get_num_threads()} CPU threads)", "")]
    count = torch.cuda.device_count()
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: use precision=fp32"
    lacking = triton_lacks()
    remedy = f"for the fast kernels it needs {lacking}" if lacking else ""
    return [("GPU", f"{count} x {torch.cuda.get_device_name(0)}, {bf16}", remedy)]


def _paths() -> list[Check]:
    from ltr_ext.admin.environment import DATASETS, environment, lookup, settings_file

    settings = environment()
    checks = [
        ("settings file", str(settings_file()), ""),
        ("workspace_dir", str(settings.workspace_dir), ""),
        ("results_dir", str(settings.results_dir), ""),
        ("pretrained_dir", str(settings.pretrained_dir), ""),
    ]
    for dataset in DATASETS:
        key = f"{dataset}_dir"
        if lookup(key) is None:
            checks.append((key, NOT_SET, f"srft env set {key} PATH, if you use it"))
            continue
        try:
            checks.append((key, str(settings.get(dataset)), ""))
        except UserError as error:
            checks.append((key, WRONG, str(error)))
    return checks


def _checkout(checkout: Path | None) -> list[Check]:
    if checkout is None:
        return []
    row = f"link of {checkout}"
    try:
        current = linked(checkout.resolve())
    except UserError as error:
        return [(row, WRONG, str(error))]
    remedy = "" if len(current) == len(SHIMS) else f"srft link {checkout}"
    checks = [(row, f"{len(current)} of {len(SHIMS)} files", remedy)]
    for name in HOST_PATHS:
        if not (checkout / name).is_file():
            remedy = "pytracking writes it when it first runs, and stops; set your paths in it"
            checks.append((name, "missing", remedy))
    if importlib.util.find_spec("jpeg4py") is None:
        checks.append(("jpeg4py", "missing", "pip install jpeg4py; pytracking imports it"))
    if importlib.util.find_spec("visdom") is None:
        remedy = 'pip install "setuptools<81" wheel && pip install --no-build-isolation visdom'
        checks.append(("visdom", "missing", f"{remedy}; pytracking imports it"))
    return checks
