"""SUTrack with a text token for every video, as its public code has it: all commands of `srft`.

Needs the extra `text`, and an official file, FILE, whose text encoder makes the token.

python examples/sutrack_text.py FILE convert FILE base.safetensors --network sutrack_b224_text
python examples/sutrack_text.py FILE evaluate public --checkpoint base.safetensors \
    --dataset_name depthtrack
python examples/sutrack_text.py FILE train sutrack224_depth --name told \
    network=two_branch_sutrack_b224_text base=base.safetensors
python examples/sutrack_text.py FILE evaluate told --dataset_name depthtrack
"""

import sys
from dataclasses import replace

from ltr_ext.models.registry import network_names, network_spec, register_network
from ltr_ext.models.sutrack import SUTrack, SUTrackSpec, TwoBranchSUTrack
from ltr_ext.models.text import SentenceEncoder
from srft_plugin.cli import main
from srft_plugin.errors import report_errors

SENTENCE = None  # or that of the one video which is to be tracked, such as "a white cat"


def register(token):
    """Every SUTrack that tokens of that width fit, once more as ``<name>_text``, with the token."""

    def told(kind):
        class Told(kind):
            def __init__(self, spec):
                super().__init__(spec)
                self.no_text = token

        return Told

    base, two_branch = told(SUTrack), told(TwoBranchSUTrack)
    for name in network_names():
        spec = network_spec(name)
        if isinstance(spec, SUTrackSpec) and spec.dim == token.shape[-1]:
            kind = two_branch if name.startswith("two_branch") else base
            register_network(kind, replace(spec, name=f"{name}_text"))


def run(words):
    if not words:
        sys.exit(__doc__)
    register(SentenceEncoder.from_checkpoint(words[0])([SENTENCE]))
    return main(words[1:])


if __name__ == "__main__":
    sys.exit(report_errors(run, sys.argv[1:]))
