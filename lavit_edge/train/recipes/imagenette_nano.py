"""``lavit_nano`` on Imagenette at 160 pixels, from scratch or distilled, in one go on a GPU.

Cost and result: never run as a whole; the bundled checkpoint was trained on a CPU in stages (docs/training.md).

    python -m lavit_edge.train --recipe imagenette_nano --data IMAGENETTE --out runs/nano --compile --workers 14
    ... --set teacher=efficientnet_lite0 mix_probability=0.3        # distilled
"""

from lavit_edge.train.recipe import Recipe

RECIPE = Recipe(
    model="lavit_nano",
    image_size=160,
    epochs=300,
    batch_size=256,
    optimizer="muon",
    lr=2e-3,
    warmup_epochs=10,
    drop_path=0.05,
    ema=0.9995,
    val_every=10,
)
