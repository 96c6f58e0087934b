"""The int8 wing: ranges by NNCF, quantisation-aware training, and the one int8 program that every exporter consumes.

The package can be called: it is :func:`lavit_edge.quantize.run.quantize`.
"""

import sys
from typing import TYPE_CHECKING, Any

from lavit_edge.verbs import verb

if TYPE_CHECKING:
    from lavit_edge.quantize.program import fake_quantized, float_program, int8_program

__all__ = ["fake_quantized", "float_program", "int8_program"]

# Imported outside of CI, NNCF 3.4 makes an id in the user's home and sends events. It goes without where it does not find the
# package that does so; here, before any module of ours can import NNCF.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

verb(__name__, "lavit_edge.quantize.run")


def __getattr__(name: str) -> Any:
    """The names above, when they are used: they import torch, which the command's --help does without."""
    if name in __all__:
        from lavit_edge.quantize import program

        return getattr(program, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
