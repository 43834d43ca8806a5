"""Tracks a target through a folder of RGB-D frames, from Python.

python examples/track_folder.py FOLDER x,y,w,h [NETWORK]     (FOLDER/color, FOLDER/depth)
"""

import sys
from pathlib import Path

from ltr_ext.data.io import read_aux, read_rgb
from ltr_ext.dataset.files import image_names
from pytracking_ext.parameter.srft import load
from pytracking_ext.tracker.srft import SRFTTracker

if len(sys.argv) < 3:
    sys.exit(__doc__)
folder, first_box, *checkpoint = sys.argv[1:]
tracker = SRFTTracker(load("default_rgb", *checkpoint))
color, depth = Path(folder) / "color", Path(folder) / "depth"
for index, (rgb, aux) in enumerate(zip(image_names(color), image_names(depth), strict=True)):
    image, info = read_rgb(color / rgb), {"aux": read_aux(depth / aux, "depth")}
    if index == 0:
        info["init_bbox"] = [float(number) for number in first_box.split(",")]
        tracker.initialize(image, info)
    else:
        answer = tracker.track(image, info)
        x, y, w, h = answer["target_bbox"]
        confidence = answer["object_presence_score"]
        print(f"{rgb}: {x:.1f},{y:.1f},{w:.1f},{h:.1f} confidence {confidence:.2f}")
