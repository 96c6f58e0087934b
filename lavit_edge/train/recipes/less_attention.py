"""One recipe for all phone-sized architectures, short enough for a CPU: what docs/less_attention.md compares.

Weak augmentation for so short a training; no figure of it is the best that its model can do. Cost: 95 to 150 s an epoch on one
idle core. Result: 50 to 71 % top-1.

    python -m lavit_edge.train --recipe less_attention --model lit_nano --data IMAGENETTE --out runs/lit --precision fp32
"""

from lavit_edge.train.recipe import Recipe

RECIPE = Recipe(
    image_size=96,
    epochs=10,
    batch_size=64,
    lr=1e-3,
    warmup_epochs=1,
    mix_probability=0.0,
    randaugment_operations=1,
    erasing=0.1,
    drop_path=0.0,
    ema=0.99,
    val_every=5,
)
