"""LiteRT's converter on this host, which has an environment of its own: the smallest LaViT."""

from __future__ import annotations

from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe
from lavit_edge.doctor.smallest import round_trip

PROBES = (Probe("int8 .tflite", lambda: round_trip("litert"), pins.repair("litert")),)
