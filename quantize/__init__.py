"""The int8 wing: ranges by NNCF, quantisation-aware training, and the one int8 program that every exporter consumes.

The package can be called: it is :func:`lavit_edge.quantize.run.quantize`.
"""

from lavit_edge.quantize.program import fake_quantized, float_program, int8_program
from lavit_edge.verbs import verb

__all__ = ["fake_quantized", "float_program", "int8_program"]

verb(__name__, "lavit_edge.quantize.run")
