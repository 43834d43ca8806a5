"""Your own base tracker: a smaller OSTrack, trained from scratch, then tuned for RGB-D with SRFT.

python examples/own_tracker.py train pretrain_tiny --name mini network=mini
python examples/own_tracker.py train tiny_depth --name mini_depth network=two_branch_mini \
    base=runs/checkpoints/ltr/srft/mini/network.safetensors
"""

import sys

from ltr_ext.models.ostrack import OSTrack, ViTSpec
from ltr_ext.models.registry import register_network
from ltr_ext.models.two_branch import TwoBranch, TwoBranchSpec
from srft_plugin.cli import main

MINI = ViTSpec(
    name="mini",
    template_size=64,
    search_size=128,
    dim=96,
    depth=4,
    heads=3,
    stem=(16, 32, 48),  # convolutions before the patches: learns sooner from scratch
    head_channels=32,
    drop_path=0.0,
)
register_network(OSTrack, MINI)
register_network(TwoBranch, TwoBranchSpec.of(MINI))

if __name__ == "__main__":
    sys.exit(main())
