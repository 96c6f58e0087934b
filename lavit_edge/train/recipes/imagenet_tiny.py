"""``lavit_tiny`` on ImageNet-1k at 224 pixels, 300 epochs.

The paper (Zhang et al., CVPR 2024) trains for 300 epochs at 224 pixels with AdamW, without a teacher, and reports 79.2 % top-1.
Warm-up, drop path, EMA and augmentation are not known; these are our choice. Never run.

    torchrun --nproc_per_node=8 -m lavit_edge.train --recipe imagenet_tiny --data IMAGENET --out runs/tiny --compile
"""

from lavit_edge.train.recipe import Recipe

RECIPE = Recipe(
    model="lavit_tiny", image_size=224, resize="crop", epochs=300, batch_size=128, lr=1.25e-4, final_lr=1e-5, warmup_epochs=20,
    drop_path=0.1, min_scale=0.08, randaugment_magnitude=9, ema=0.9999, val_every=5,
)  # fmt: skip
