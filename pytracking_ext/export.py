"""Writes a tracker's network as one file that other run times execute.

The file takes crops as bytes and answers with boxes: normalisation, the Hann window and the choice
of the best cell are inside. What is left to the caller (where to crop, where the box lies in the
frame) is described by the file's metadata; ``examples/track_onnx.py`` shows it without torch.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ltr_ext.admin.files import atomic_write, sync
from ltr_ext.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from ltr_ext.data.representation import MODALITIES
from ltr_ext.models.network import TrackingNetwork
from pytracking_ext.parameter.srft import TrackerParameters
from pytracking_ext.tracker.srft.localise import hann_window, localise
from srft_plugin.errors import UserError, unknown

FORMATS = {"onnx": ".onnx", "torch-export": ".pt2", "tensorrt-ready": ".onnx"}
SAMPLES = 3  # in a trace; a number that no other axis has
OPSET = 18
FORMAT = "srft-export-1"


class ExportedTracker(nn.Module):
    """Crops in, box and confidence out: what an exported file computes.

    Args:
        network: in eval mode.
        window_weight: as of ``TrackerParameters``.
    """

    def __init__(self, network: TrackingNetwork, window_weight: float | None) -> None:
        super().__init__()
        self.network, self.window_weight = network, window_weight
        images = network.spec.in_channels // 3
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            scaled = 255 * torch.tensor(values * images)
            self.register_buffer(name, scaled.view(-1, 1, 1), persistent=False)
        self.register_buffer("window", hann_window(network.spec.grid), persistent=False)

    def forward(
        self, template: Tensor, search: Tensor, template_box: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Locates the template's target in the search region.

        Args:
            template, search: (B, S, S, C) images, uint8 or float with values of bytes.
            template_box: (B, 4) cxcywh in [0, 1] of the template, for networks that take it.

        Returns:
            (B, 4) cxcywh in [0, 1] of the search region, and confidences (B,).
        """
        inputs = [self._normalised(template), self._normalised(search)]
        if template_box is not None:
            inputs.append(template_box)
        return localise(self.network(*inputs), self.window, self.window_weight)

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


def export(parameters: TrackerParameters, target: Path, format: str = "onnx") -> Path:
    """Writes the network of a tracker, for any batch size.

    Args:
        parameters: on the CPU, without engine.
        target: the file to write; the ending of its format is added to a name without one.
        format: ``onnx``; ``torch-export``, for ``torch.export.load``; or ``tensorrt-ready``, ONNX
            with float32 instead of byte images.

    Returns:
        The file. Weights of ONNX above 1.5 GB are in another one, ``<name>.data``, beside it.

    Raises:
        UserError: unknown format, a package that is missing, a folder that cannot be written, an
            engine, or a network for several modalities that nobody says one of.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if target.suffix not in FORMATS.values():
        target = target.with_name(target.name + FORMATS[format])
    if target.suffix != FORMATS[format]:
        raise UserError(f"{target}: the format {format} has the ending {FORMATS[format]}")
    if parameters.precision is not None:
        raise UserError(
            f"{parameters.checkpoint} runs in the engine, which is not what is exported; load it "
            "without precision"
        )
    network = parameters.network
    if "modality" in network.input_names and network.metadata.get("modality") not in MODALITIES:
        raise UserError(
            f"{parameters.checkpoint} is for several modalities, and a file is for one; name it "
            f"with `srft convert IN OUT --modality NAME` ({', '.join(MODALITIES)})"
        )
    tracker = ExportedTracker(network, parameters.window_weight).eval()
    inputs = example_inputs(network, torch.float32 if format == "tensorrt-ready" else torch.uint8)
    record = json.dumps(geometry(parameters))
    if format == "torch-export":
        program = _program(tracker, inputs)
        atomic_write(target, lambda path: _write_torch(program, record, path))
    else:
        _need("onnx", "onnxscript")
        onnx = _to_onnx(_program(tracker, inputs), list(inputs), record)
        atomic_write(target, lambda path: _write_onnx(onnx, path, target.name))
    return target


def geometry(parameters: TrackerParameters) -> dict[str, Any]:
    """What a caller must know of a tracker beside its file."""
    spec = parameters.network.spec
    names = (
        "template_size", "search_size", "template_factor", "search_factor", "context", "in_channels"
    )  # fmt: skip
    return {
        "format": FORMAT,
        "network": spec.name,
        **{name: getattr(spec, name) for name in names},
        "margin": parameters.margin,
        "inputs": [name for name in parameters.network.input_names if name != "modality"],
        "outputs": ["box", "confidence"],
        "channels": "RGB, then auxiliary"
        if spec.in_channels == 6
        else "auxiliary"
        if spec.aux_only
        else "RGB",
    }


def example_inputs(network: TrackingNetwork, dtype: torch.dtype) -> dict[str, Tensor]:
    """A few samples of the file's inputs."""
    spec = network.spec
    made = {
        name: torch.zeros(SAMPLES, size, size, spec.in_channels, dtype=dtype)
        for name, size in (("template", spec.template_size), ("search", spec.search_size))
    }
    if "template_box" in network.input_names:
        made["template_box"] = torch.full((SAMPLES, 4), 0.5)
    return made


def _program(tracker: ExportedTracker, inputs: dict[str, Tensor]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad():
        return torch.export.export(
            tracker, (), inputs, dynamic_shapes={name: {0: batch} for name in inputs}, strict=False
        )


def _write_torch(program: torch.export.ExportedProgram, record: str, path: Path) -> None:
    with path.open("wb") as file:  # by the name alone, torch refuses the ending of a partial file
        torch.export.save(program, file, extra_files={"srft.json": record})


def _to_onnx(
    program: torch.export.ExportedProgram, names: list[str], record: str
) -> torch.onnx.ONNXProgram:
    try:
        with torch.no_grad():  # attention lays its answer out by whether gradients are wanted
            onnx = torch.onnx.export(
                program, input_names=names, output_names=["box", "confidence"],
                opset_version=OPSET, dynamo=True, verbose=False,
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"torch {torch.__version__} cannot write this network as ONNX; take a newer one, or "
            "--format torch-export"
        ) from error
    onnx.model.metadata_props["srft"] = record
    return onnx


def _write_onnx(onnx: torch.onnx.ONNXProgram, path: Path, name: str) -> None:
    """Writes ``path``, which will be called ``name``: so does its reference to large weights."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}.") as folder:
        model = Path(folder, name)
        onnx.save(str(model))
        weights = Path(folder, f"{name}.data")
        for file in filter(Path.exists, (model, weights)):
            sync(file)  # what does not fit on the disk shows before anything takes its place
        model.replace(path)
        if weights.exists():
            weights.replace(path.with_name(weights.name))


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'exporting to ONNX needs {" and ".join(missing)}; pip install -e ".[export]"'
        )
