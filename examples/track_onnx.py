"""Tracks by an exported file: python track_onnx.py tracker.onnx video.mp4 x,y,w,h [aux.mp4]"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def crop(image, box, factor, size):  # a square around the box, black outside of the image
    wide = box[2:] + (factor - 1) * box[2:].mean() if spec["context"] else box[2:] * factor
    side = int(np.ceil(np.sqrt(wide.prod())))
    corner = [round(box[i] + 0.5 * box[i + 2] - 0.5 * side) for i in (0, 1)]
    spans = zip(corner, image.shape[1::-1], strict=True)
    (x0, x1), (y0, y1) = ((max(a, 0), a + side if a + side < n else n - 1) for a, n in spans)
    square = np.zeros((side, side, image.shape[2]), np.uint8)
    square[y0 - corner[1] : y1 - corner[1], x0 - corner[0] : x1 - corner[0]] = image[y0:y1, x0:x1]
    return cv2.resize(square, (size, size))[None].astype(pixel), np.array(corner), side


model, video, start, *aux = sys.argv[1:] if len(sys.argv) > 3 else sys.exit(__doc__)
session, box, inputs = onnxruntime.InferenceSession(model), np.array(start.split(","), float), {}
pixel = np.uint8 if "uint8" in session.get_inputs()[0].type else np.float32  # tensorrt-ready
spec = json.loads(session.get_modelmeta().custom_metadata_map["srft"])
streams, images = [cv2.VideoCapture(name) for name in (video, *aux)], spec["in_channels"] // 3
streams = streams[-1:] if spec["channels"] == "auxiliary" else streams[:images]
len(streams) == images or sys.exit(f"{model} reads {spec['channels']}: give it the auxiliary video")
while all(stream.grab() for stream in streams) or (not inputs and sys.exit(f"no frame: {video}")):
    image = np.concatenate([stream.retrieve()[1][..., ::-1] for stream in streams], 2)
    which = "search" if inputs else "template"
    crops, corner, side = crop(image, box, spec[f"{which}_factor"], spec[f"{which}_size"])
    if inputs:
        (found,), (score,) = session.run(None, inputs | {"search": crops})
        centre, half = corner + found[:2].astype(float) * side, found[2:].astype(float) * side / 2
        limit, margin = np.array(image.shape[1::-1]), spec["margin"]
        low = np.clip(centre - half, 0, limit - margin)
        box = np.append(low, np.maximum(margin, np.clip(centre + half, margin, limit) - low))
        print(*box.round(2), round(float(score), 3))
    else:  # networks that want to know where the target is in the template have a second input
        middle = np.append(box[:2] + box[2:] / 2 - corner, box[2:])
        given = {"template": crops, "template_box": np.float32([middle / side])}
        inputs = {name: given[name] for name in spec["inputs"] if name in given}
