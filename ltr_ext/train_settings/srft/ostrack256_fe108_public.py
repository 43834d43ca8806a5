"""OSTrack-256 with SRFT and the public code's rates for FE108.

python -m ltr_ext.run_training srft ostrack256_fe108_public
"""

from ltr_ext.train_settings.paper import public_recipe

recipe = public_recipe(
    "event",
    datasets=("fe108",),
    lr_groups=(
        r"backbone\.norm_=1e-6",
        "patch_embed_rgb=1e-5",
        "blocks_rgb=2e-5",
        "(patch_embed_aux|fusion)=5e-5",
    ),
)
run = recipe.run
