"""The default RGB tracker, from nothing but generated videos.

python -m ltr_ext.run_training srft pretrain_tiny
"""

from ltr_ext.recipe import Recipe

recipe = Recipe(
    network="ostrack_tiny",
    datasets=("synthetic_stills",),
    base=None,
    regularizer="none",
    trainable="all",
    epochs=60,
    samples_per_epoch=10_000,
    batch_size=32,
    lr=1e-3,
    weight_decay=1e-2,
    grad_clip=1.0,
    warmup=0.01,
    decay="linear",
    precision="bf16",
    workers=1,
)
run = recipe.run
