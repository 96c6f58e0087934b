"""The int8 wing: ranges by NNCF, quantisation-aware training, and the one int8 program that every exporter consumes."""

from lavit_edge.quantize.program import fake_quantized, float_program, int8_program

__all__ = ["fake_quantized", "float_program", "int8_program"]
