"""RGB-D on DepthTrack from OSTrack-256 (Tables II and IV).

python -m ltr_ext.run_training srft ostrack256_depth base=/path/to/OSTrack_ep0300.pth.tar
"""

from ltr_ext.recipe import Recipe

recipe = Recipe(
    network="two_branch_ostrack256",
    datasets=("depthtrack",),
    source=("lasot", "got10k"),
    precision="bf16",
    workers=8,
)
run = recipe.run
