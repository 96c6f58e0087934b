"""lavit-edge: the Less-Attention Vision Transformer on phones, in int8, with artifacts that are shown to agree.

Importing this package imports neither torch nor an exporter's toolchain; each name below is loaded when it is first used.
``__init__.pyi`` says their types. A verb is the module of its name, which can be called (``verbs.py``, docs/python.md).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

__version__ = "0.2.0"

# Runtimes stay silent. On Linux, importing ONNX Runtime 1.31.1 writes a device id and a queue of events for its maker into the
# user's cache; its disable_telemetry_events() comes too late for that. Here, before any module of ours can import it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_VERBS = ("adapt", "benchmark", "compare", "evaluate", "export", "predict", "quantize", "selftest", "train", "verify")
_HOMES = {
    "BenchmarkConfig": "lavit_edge.benchmark.devices",
    "Checkpoint": "lavit_edge.checkpoint",
    "Classifier": "lavit_edge.classifier",
    "EvaluateConfig": "lavit_edge.evaluate",
    "ExportConfig": "lavit_edge.export.config",
    "Gates": "lavit_edge.parity.agreement",
    "InputContract": "lavit_edge.contract",
    "PredictConfig": "lavit_edge.predict",
    "QuantizeConfig": "lavit_edge.quantize.config",
    "Recipe": "lavit_edge.train.recipe",
    "TrainConfig": "lavit_edge.train.config",
    "UserError": "lavit_edge.errors",
    "VerifyConfig": "lavit_edge.verify",
    "create_model": "lavit_edge.models",
    "list_models": "lavit_edge.models",
    "load_checkpoint": "lavit_edge.checkpoint",
}
__all__ = sorted([*_HOMES, *_VERBS])


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return import_module(f"lavit_edge.{name}")
    if name in _HOMES:
        try:
            return getattr(import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:  # torch, in an app's environment
            if absent := import_module("lavit_edge.errors").not_installed(error):
                raise absent from error
            raise
    raise AttributeError(f"module 'lavit_edge' has no attribute {name!r}")
