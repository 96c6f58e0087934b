"""Makes tests/golden/litert: the smallest LaViT as a checkpoint, and its bundle with a ``.tflite``. Where the converter is:

    pip install -e '.[litert,litert-runtime]'
    python scripts/make_golden_tflite.py

Tests elsewhere, which have LiteRT's runtime but not its converter, read, run and verify what is committed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lavit_edge.doctor.smallest import save_smallest
from lavit_edge.export.bundle import export
from lavit_edge.export.config import ExportConfig
from lavit_edge.parity.agreement import Gates

GATES = Gates(agreement=0.0, int8_margin=30.0)  # of random weights nothing is asked
OUT = Path(__file__).parents[1] / "tests" / "golden" / "litert"


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    save_smallest(OUT / "checkpoint")
    made = export(OUT / "checkpoint", OUT / "bundle", ExportConfig(targets=("litert",), gates=GATES))
    if not made.passed:
        raise SystemExit("it does not agree with its program")
    print(OUT)


if __name__ == "__main__":
    main()
