r"""UPVPT on SwinTrack-T with SwinTrack's budget: GOT-10k, LaSOT, TrackingNet and COCO.

srft convert swin_tiny_patch4_window7_224.pth PRETRAINED_DIR/swin_swintrack_t224.safetensors \
    --network swintrack_t224
python -m ltr_ext.run_training srft upvpt_swintrack_t224
"""

from ltr_ext.train_settings.paper import upvpt_recipe

recipe = upvpt_recipe(
    "upvpt_swintrack_t224",
    "swin_swintrack_t224.safetensors",
    samples_per_epoch=131_072,
    batch_size=128,
    lr=5e-4,
    lr_groups=(r"^backbone\.stages=5e-5",),
    warmup=0.01,
    decay_at=0.7,
    max_gap=100,
)
run = recipe.run
