r"""UPVPT on OSTrack-256, from a classifier's ViT-B: GOT-10k, LaSOT, TrackingNet and COCO.

srft convert mae_pretrain_vit_base.pth PRETRAINED_DIR/mae_ostrack256.safetensors \
    --network ostrack256
python -m ltr_ext.run_training srft upvpt_ostrack256
"""

from ltr_ext.train_settings.paper import upvpt_recipe

recipe = upvpt_recipe("upvpt_ostrack256", "mae_ostrack256.safetensors")
run = recipe.run
