"""Benchmarks and their reports. The package can be called: it is :func:`lavit_edge.benchmark.run.benchmark`."""

from lavit_edge.verbs import verb

verb(__name__, "lavit_edge.benchmark.run")
