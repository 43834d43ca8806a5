"""Fixtures shared by all tests."""

import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton's kernels run in its interpreter; Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SRFT_SHARED", REPOSITORY.parent / "shared"))


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    """The CPU, then the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def recent_torch() -> None:
    """For what torch 2.6 cannot do: ONNX, and FSDP and fake CUDA tensors without a GPU."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
        pytest.skip(f"torch {torch.__version__} is too old for this")


# Operations that wait for the device to tell a value or a shape.
READS = ("_local_scalar_dense", "item", "nonzero", "unique", "masked_select")


@pytest.fixture(scope="session")
def waits():
    """Function that says whether a dispatched operation waits for the device."""
    return lambda operation: any(name in operation.overloadpacket.__name__ for name in READS)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with golden values and small real sequences; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data in {SHARED}; set SRFT_SHARED to a folder that has them")
    return SHARED


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """File of an untrained RGB tracker, for what does not depend on how good it is."""
    from ltr_ext.models.checkpoint import save_network
    from ltr_ext.models.registry import build_network

    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_network(build_network("ostrack_tiny"), file)
    return file


@pytest.fixture(scope="session")
def load_script():
    """Imports a file that is in no package: load_script(path)."""

    def load(path: Path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def compiling():
    """Runs a script that compiles Triton's kernels, without its interpreter: words of its lines."""

    def run(script: str) -> list[list[str]]:
        environment = os.environ | {"TRITON_INTERPRET": "0"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    return run


@pytest.fixture(scope="session")
def two_processes():
    """Context in which `python WORKER RANK FOLDER` runs for both ranks; it ends when they do."""

    @contextmanager
    def running(worker: Path, folder: Path):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        commands = [[sys.executable, str(worker), str(rank), str(folder)] for rank in range(2)]
        processes = [subprocess.Popen(command, env=environment) for command in commands]
        try:
            yield
            assert [process.wait(timeout=240) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()

    return running
