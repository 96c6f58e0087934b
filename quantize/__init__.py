"""The int8 wing: ranges by NNCF, quantisation-aware training, and the one int8 program that every exporter consumes.

The package can be called: it is :func:`lavit_edge.quantize.run.quantize`.
"""

import sys

from lavit_edge.quantize.program import fake_quantized, float_program, int8_program
from lavit_edge.verbs import verb

__all__ = ["fake_quantized", "float_program", "int8_program"]

# Imported outside of CI, NNCF 3.4 makes an id in the user's home and sends events. It goes without where it does not find the
# package that does so; here, before any module of ours can import NNCF.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

verb(__name__, "lavit_edge.quantize.run")
