"""A phone-sized model on Imagenette at 160 pixels, from scratch or distilled, in some minutes on a GPU.

``scripts/gpu_job.py`` trains with it, and sets ``epochs`` by the clock. Cost and result: never run on a GPU.

    python -m lavit_edge.train --recipe imagenette_mobile --data IMAGENETTE --out runs/mobile --compile --cache runs/cache
    ... --set teacher=efficientnet_lite0 mix_probability=0.3        # distilled
"""

from lavit_edge.train.recipe import Recipe

RECIPE = Recipe(
    model="lavit_mobile_s",
    image_size=160,
    epochs=200,
    batch_size=256,
    optimizer="muon",
    lr=2e-3,
    warmup_epochs=5,
    mix_probability=0.5,
    drop_path=0.02,
    ema=0.998,
    val_every=20,
)
