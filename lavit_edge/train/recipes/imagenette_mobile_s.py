"""``lavit_mobile_s`` on Imagenette at 160 pixels, from scratch or distilled, on a GPU.

Cost and result: never run.

    python -m lavit_edge.train --recipe imagenette_mobile_s --data IMAGENETTE --out runs/s --compile --workers 14
    ... --set teacher=efficientnet_lite0 mix_probability=0.3        # distilled
"""

from lavit_edge.train.recipe import Recipe

RECIPE = Recipe(
    model="lavit_mobile_s",
    image_size=160,
    epochs=300,
    batch_size=256,
    optimizer="muon",
    lr=2e-3,
    warmup_epochs=10,
    drop_path=0.02,
    ema=0.9995,
    val_every=10,
)
