"""The export wing: one program to ``.pte``, ``.mlpackage``, ``.onnx`` and ``.aimodel``, and the bundle that holds them.

The package can be called: it is :func:`lavit_edge.export.bundle.export`.
"""

from lavit_edge.verbs import verb

verb(__name__, "lavit_edge.export.bundle")
