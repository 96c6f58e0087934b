"""From pictures to a checkpoint. The package can be called: it is :func:`lavit_edge.train.run.train`."""

from lavit_edge.verbs import verb

verb(__name__, "lavit_edge.train.run")
