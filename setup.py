"""Packaging of SRFT: four packages, one console command."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGES = ("srft_plugin", "ltr_ext", "pytracking_ext", "vot_integration")

# Run time. torch >= 2.6 is the first release whose torch.load refuses code by default.
INSTALL = [
    "torch>=2.6",
    "torchvision",  # timm needs it
    "timm>=1.0.17",  # ViT blocks; the first with a mask for the attention of a block
    "numpy>=1.26",
    "opencv-python>=4.8",  # image decoding, crops, colour maps; the build that vot-toolkit names
    "safetensors>=0.4",  # weights and priors without pickle
    "tqdm>=4.60",  # progress bars
    "matplotlib>=3.7",  # figures and reports
    "tensorboard>=2.14",  # training curves
    "shtab>=1.6",  # tab completion
]
# 0.7.4 runs both RGB-D stacks unpatched; attributee 0.1.10 does not import on Python >= 3.11.
VOT = ["vot-toolkit==0.7.4", "vot-trax>=4.0.2,<5", "attributee==0.1.9"]
EVENTS = ["aedat>=2.2", "h5py>=3.8"]  # event streams: aedat4 (lz4, zstd), HDF5
FAST = ["simplejpeg>=1.7", "isal>=1.7"]  # JPEG only as far down as the crop reaches; PNG sooner
TEXT = ["open_clip_torch>=2.20"]  # sentences for SUTrack: CLIP's text tower and tokenizer
STUDY = ["scipy>=1.11"]  # Student's t of the study's intervals
EXPORT = ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"]  # srft export
DOCS = ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"]  # the documentation as a site
TEST = ["pytest>=8", "hypothesis>=6", "ruff>=0.6", *VOT, *EVENTS, *FAST, *STUDY, *EXPORT]

setup(
    name="srft",
    version="0.1.0",
    description="Sensitivity-aware regularized tuning of RGB-X trackers, a plug-in for pytracking",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[name + pattern for name in PACKAGES for pattern in ("", ".*")]),
    package_data={
        "ltr_ext": ["models/weights/*.safetensors", "models/weights/*.md"],
        "pytracking_ext": ["report/*.css", "report/*.js"],
        "vot_integration": ["stacks/*.yaml"],
    },
    install_requires=INSTALL,
    extras_require={
        "vot": VOT,
        "events": EVENTS,
        "fast": FAST,
        "text": TEXT,
        "export": EXPORT,
        "docs": DOCS,
        "study": STUDY,
        "test": TEST,
    },
    entry_points={"console_scripts": ["srft=srft_plugin.cli:main"]},
)
