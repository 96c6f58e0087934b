"""``lavit-edge COMMAND ...``, the same as ``python -m lavit_edge.COMMAND ...``."""

from __future__ import annotations

import difflib
import runpy
import sys

from lavit_edge import __version__
from lavit_edge.cli import run_command

COMMANDS = {
    "adapt": "turn a model of another package into a checkpoint",
    "split": "split a folder of classes into train/ and val/",
    "train": "train a model on a folder of pictures, or on shards",
    "shards": "turn a folder of pictures into tar shards, or back",
    "quantize": "turn a checkpoint into an int8 checkpoint",
    "export": "turn a checkpoint into .pte, .mlpackage, .onnx or .aimodel",
    "selftest": "let an artifact test itself on the pictures that it carries",
    "verdict": "predict from an artifact whether int8 will be faster than float",
    "benchmark": "time an artifact on this machine, a phone, a board or in a browser",
    "compare": "compare benchmark reports: faster, slower or inconclusive",
    "profile": "show where an artifact's time goes",
    "serve": "show a model in a web page, on this machine or on a phone",
    "verify": "compare a bundle's artifacts on labelled pictures",
    "predict": "say what a model sees in pictures",
    "evaluate": "judge a model, or two side by side, on labelled pictures",
    "doctor": "try the tools on this machine and say what to mend",
}


def main() -> None:
    """Entry point of the console script."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in {"-h", "--help"}:
        print("usage: lavit-edge COMMAND [options]\n")
        for command, text in COMMANDS.items():
            print(f"  {command:<10}{text}")
        return
    if name == "--version":
        print(__version__)
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        print(
            f"error: unknown command {name!r}; {f'did you mean {near[0]!r}?' if near else 'lavit-edge --help lists them'}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    del sys.argv[1]
    run_command(lambda: _run(name))


def _run(name: str) -> int:
    """Runs the command's module, which exits with its own code."""
    runpy.run_module(f"lavit_edge.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    main()
