"""An RGB tracker three times the size of the default one, from generated videos: for a GPU.

python -m ltr_ext.run_training srft pretrain_small
"""

from dataclasses import replace

from ltr_ext.train_settings.srft.pretrain_tiny import recipe as tiny

recipe = replace(
    tiny, network="ostrack_small", epochs=100, samples_per_epoch=40_000, batch_size=64, workers=8
)
run = recipe.run
