"""Compares two networks on a data set: scores, intervals, and whether the difference is real.

python examples/compare_trackers.py depthtrack data/DepthTrack A.safetensors B.safetensors
"""

import sys

from pytracking_ext.analysis.conventions import convention
from pytracking_ext.analysis.frames import Prediction
from pytracking_ext.analysis.scoring import score_benchmark
from pytracking_ext.analysis.significance import differences, verdict
from pytracking_ext.evaluation.datasets import open_test_set, read_sequences
from pytracking_ext.evaluation.running import track_many
from pytracking_ext.evaluation.scores import ground_truths
from pytracking_ext.parameter.srft import from_checkpoint

if len(sys.argv) != 5:
    sys.exit(__doc__)
benchmark, root, *networks = sys.argv[1:]
sequences, _ = read_sequences(open_test_set(benchmark, root))
how = convention(benchmark)
truths = ground_truths(sequences, how)
scores = []
for network in networks:
    predictions = {}
    for sequence, result in track_many(sequences, from_checkpoint(network), batch=4):
        if isinstance(result, str):
            sys.exit(f"{sequence.name}: {result}")
        predictions[sequence.name] = Prediction(result.boxes, result.confidences)
    scores.append(score_benchmark(truths, predictions, how))
    print(network, {metric: f"{100 * value:.1f}" for metric, value in scores[-1].total.items()})
for metric, found in differences(*scores).items():
    low, high = (f"{100 * bound:.1f}" for bound in found)
    print(f"{metric}: difference {low} to {high}, {verdict(found, len(sequences))}")
