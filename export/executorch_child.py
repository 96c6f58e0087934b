"""``python -m lavit_edge.export.executorch_child FOLDER``: lowers to ExecuTorch, in a process of its own beside the others.

Its lowering takes one core for a third of an export. The other process loads toolchain and program while this one chooses golden
pictures, and lowers while this one converts to the other formats: all three took 42 s instead of 49, on two quiet cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lavit_edge.cli import run_command
from lavit_edge.errors import UserError
from lavit_edge.export.targets import TARGETS, ExecutorchOptions, Options
from lavit_edge.toolchain import quiet

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from lavit_edge.artifact.payload import Payload

EXECUTORCH = "executorch"
PROGRAM, ORDER, SAID = "program.pt2", "order.json", "said.txt"  # in the folder between the two


class ExecutorchChild:
    """``with ExecutorchChild(...) as child: ...; child.begin(payload, path); ...; child.finish()``"""

    def __init__(self, program: ExportedProgram, options: Options) -> None:
        import torch

        self._between = tempfile.TemporaryDirectory(prefix="lavit-edge-")
        self._folder = Path(self._between.name)
        with quiet():
            torch.export.save(program, self._folder / PROGRAM)
        # two threads in each would wait for each other; and what this process could import, the other one can
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        with (self._folder / SAID).open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._folder), json.dumps(vars(options))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=environment,
            )

    def __enter__(self) -> ExecutorchChild:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._between.cleanup()

    def begin(self, payload: Payload, path: Path) -> None:
        """Has the artifact written to ``path``. Raises as :meth:`finish` where there will be none."""
        order = {"path": str(path.absolute()), "payload": payload.metadata()}
        (self._folder / ORDER).write_text(json.dumps(order))
        assert self._process.stdin is not None
        self._process.stdin.close()  # which the other process waits for
        if self._process.poll() is not None:  # its toolchain is missing: nobody should wait for the other formats first
            self.finish()

    def finish(self) -> None:
        """Waits for the artifact.

        Raises:
            UserError: as :meth:`lavit_edge.export.targets.Target.export`, or the other process was killed.
        """
        code = self._process.wait()
        said = (self._folder / SAID).read_text(errors="replace").strip()
        if code == 2:
            raise UserError(said.splitlines()[-1].removeprefix("error: "))
        if code < 0:
            raise UserError(f"the process that lowers to ExecuTorch was ended by signal {-code}, as where memory is short")
        if code:
            raise RuntimeError(said)


def main() -> int:
    folder, options = Path(sys.argv[1]), ExecutorchOptions(**json.loads(sys.argv[2]))
    import torch

    import lavit_edge.quantize.program  # noqa: F401  (the operators of int8 programs)
    from lavit_edge.artifact.payload import KEY, read_payload
    from lavit_edge.export.executorch import new_partitioner

    program = torch.export.load(folder / PROGRAM)
    new_partitioner(options)  # for its imports, which take seconds
    sys.stdin.read()
    if not (folder / ORDER).exists():  # the export has ended
        return 0
    order = json.loads((folder / ORDER).read_text())
    payload = read_payload({name.removeprefix(KEY): value for name, value in order["payload"].items()})
    TARGETS[EXECUTORCH].export(program, payload, Path(order["path"]), options)
    return 0


if __name__ == "__main__":
    run_command(main)
