"""RGB-D from the bundled RGB tracker, with SRFT: the recipe of `srft demo`, for a CPU.

python -m ltr_ext.run_training srft tiny_depth datasets=depthtrack:/path/to/train
"""

from ltr_ext.recipe import Recipe

recipe = Recipe(
    network="two_branch_tiny",
    datasets=("synthetic_rgbd",),
    epochs=4,
    samples_per_epoch=800,
    batch_size=16,
    lr=3e-4,
    grad_clip=1.0,
    prior_samples=64,
    workers=1,
)
run = recipe.run
