"""Your own data set: say how it lies on disk, and every command of `srft` knows it.

python examples/own_data.py data check mine data/Mine
python examples/own_data.py train tiny_depth datasets=mine:data/Mine
"""

import sys

from ltr_ext.dataset.base import Layout
from ltr_ext.dataset.kinds import KINDS, Kind, Split
from srft_plugin.cli import main

KINDS["mine"] = Kind(
    Layout(
        rgb=("left",),  # <sequence>/left/*.png, any names, paired in natural order
        aux=("range",),  # <sequence>/range/*.png, uint16 millimetres
        annotation=("boxes.csv",),  # x,y,w,h per line, nan where the target is absent
        modality="depth",
    ),
    {
        "train": Split(folders=("training",)),  # data/Mine/training/<sequence>
        "test": Split(folders=("testing",)),
    },
)

if __name__ == "__main__":
    sys.exit(main())
