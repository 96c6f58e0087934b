"""A model of another package becomes a checkpoint. The package can be called: it is :func:`lavit_edge.adapt.run.adapt`."""

from lavit_edge.verbs import verb

verb(__name__, "lavit_edge.adapt.run")
