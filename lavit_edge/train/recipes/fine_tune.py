"""Some hundred to some thousand pictures of one's own, from a trained checkpoint: what ``--init`` takes unless told otherwise."""

from lavit_edge.train.recipe import Recipe

RECIPE = Recipe(
    epochs=30,
    batch_size=16,
    lr=1e-3,
    warmup_epochs=1,
    mix_probability=0.0,
    patience=12,
)
