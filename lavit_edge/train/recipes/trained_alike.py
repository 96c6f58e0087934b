"""One recipe for phone-sized nets of all makers, from scratch on Imagenette at 128 pixels: what docs/peers.md compares.

No setting was tuned for any of them. AdamW at the rate at which ``lavit_mobile_s``, MobileNetV2 and MobileNetV4 were first tried;
Muon was measured on LaViT alone, and could favour it. Augmentation between the light one of ``less_attention``, for 10 epochs,
and the default, for 100. Cost: 20 epochs of 147 steps; on one busy core of an AMD EPYC a step took 0.3 s of processor time for
``lavit_mobile_s``, 0.7 for ``lavit_mobile_m``, 0.4 for MobileNetV4, 1.1 for MobileNetV2, 3.3 for MobileOne-S0.

    python benchmarks/trained_alike.py --models lavit_mobile_s MobileNetV2 --data IMAGENETTE
"""

from lavit_edge.train.recipe import Recipe

RECIPE = Recipe(
    model="lavit_mobile_s",
    image_size=128,
    epochs=20,
    batch_size=64,
    lr=2e-3,
    warmup_epochs=1,
    mix_probability=0.2,
    randaugment_operations=1,
    randaugment_magnitude=6.0,
    erasing=0.1,
    min_scale=0.35,
    drop_path=0.0,
    ema=0.998,
    val_every=5,
)
