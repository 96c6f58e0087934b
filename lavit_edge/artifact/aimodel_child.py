"""``python -m lavit_edge.artifact.aimodel_child run|describe MODEL [NUMBER ...]``: Apple's Core AI behind a pipe.

Messages are those of :mod:`lavit_edge.artifact.aimodel`. The runtime logs to file descriptors 1 and 2, which are put aside.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from lavit_edge.artifact.aimodel import receive, send

SOURCE = re.compile(r'identifiers = \["([^"]+)"\], name = "torch"')
TYPE = re.compile(r"tensor<((?:\d+x)*)(\w+)>")
SIGNATURE = re.compile(r"(coreai\.graph @main\(.*?\) -> \()(.*?)(\)(?: attributes \{[^}]*\})? \{)", re.DOTALL)
OUTPUT = re.compile(r"coreai\.output ([^:\n]*) : ([^\n]*)")
SCALARS = ("si8", "f32")  # constants of one element that are a scale or a zero point


def main(what: str, path: Path, numbers: list[int]) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        from coreai.authoring import AIModelAsset

        asset = AIModelAsset.load(path)
        if what == "describe":
            found = json.dumps(describe(asset.program)).encode()
            send(answers, {"operations": np.frombuffer(found, np.uint8)})
            return
        with tempfile.TemporaryDirectory() as folder:
            if numbers:
                asset = watched(asset.program, numbers, Path(folder) / path.name)
            asyncio.run(serve(asset, sys.stdin.buffer, answers))
    except Exception as error:  # the runtime's have no common base
        text = f"{type(error).__name__}: {error}".encode()
        send(answers, {"error": np.frombuffer(text, np.uint8)})


async def serve(asset: Any, requests: IO[bytes], answers: IO[bytes]) -> None:
    """Says that the model is loaded, then answers until there is no request any more."""
    from coreai.runtime import NDArray

    async with asset.executable() as model:
        function = model.load_function("main")
        send(answers, {"loaded": np.zeros(1, np.uint8)})
        while True:
            try:
                request = receive(requests)
            except EOFError:
                return
            outputs = await function({name: NDArray(value) for name, value in request.items()})
            # copies: the arrays' memory is the runtime's
            send(answers, {name.removeprefix("at."): np.array(value.numpy(), order="C") for name, value in outputs.items()})


def describe(program: Any) -> list[dict[str, Any]]:
    """The operations of ``@main`` in order.

    Each has ``name`` (as ``conv2d``), ``source`` (the node of the exported program that it computes, or None), ``operands``
    (numbers of operations; -1 is the picture), ``shape`` and ``type`` of its first result, and for a constant of one element its
    ``value``.
    """
    found: list[dict[str, Any]] = []
    numbers: dict[Any, int] = {}
    for number, operation in enumerate(_operations(program)):
        type_ = _type(operation)
        entry = {
            "name": operation.name.split(".")[-1].removeprefix("broadcasting_"),
            "source": _source(operation),
            "operands": [numbers.get(operand, -1) for operand in operation.operands],
            "shape": type_[0],
            "type": type_[1],
        }
        if entry["name"] == "constant" and type_ == ([], type_[1]) and type_[1] in SCALARS:
            entry["value"] = _scalar(operation)
        found.append(entry)
        numbers.update(dict.fromkeys(operation.results, number))
    return found


def watched(program: Any, numbers: list[int], path: Path) -> Any:
    """A copy of a program in which the results of some operations are outputs, named ``at.NUMBER``."""
    from coreai._compiler.ir import Module
    from coreai.authoring import AIProgram, Context

    operations = _operations(program)
    chosen = [(number, operations[number].results[0]) for number in numbers]
    module = program._module._mlir_module
    text = module.operation.get_asm()
    types = [str(value.type) for _, value in chosen]
    names = [value.get_name(use_local_scope=False) for _, value in chosen]  # as in the text
    declared = "".join(f', {type_} {{coreai.name = "at.{number}"}}' for (number, _), type_ in zip(chosen, types, strict=True))
    text, once = SIGNATURE.subn(lambda found: found[1] + found[2] + declared + found[3], text, count=1)
    outputs = "".join(f", {name}" for name in names), "".join(f", {type_}" for type_ in types)
    text, twice = OUTPUT.subn(lambda found: f"coreai.output {found[1]}{outputs[0]} : {found[2]}{outputs[1]}", text, count=1)
    if (once, twice) != (1, 1):
        raise ValueError("the program has no function main with one block")
    return AIProgram._from_mlir_module(Module.parse(text, Context()._mlir_context)).save_asset(path)


def _operations(program: Any) -> list[Any]:
    graphs = [each for each in program._module._mlir_module.body.operations if each.operation.name == "coreai.graph"]
    if len(graphs) != 1 or len(graphs[0].regions[0].blocks) != 1:
        raise ValueError("the program is not one function of one block")
    return [each.operation for each in graphs[0].regions[0].blocks[0].operations]


def _source(operation: Any) -> str | None:
    found = SOURCE.findall(str(operation.location))
    return found[-1] if found else None


def _type(operation: Any) -> tuple[list[int], str]:
    match = TYPE.fullmatch(str(operation.results[0].type)) if len(operation.results) else None
    return ([int(size) for size in match[1].split("x") if size], match[2]) if match else ([], "")


def _scalar(operation: Any) -> float:
    """Of ``dense<1.5> : tensor<f32>``; what is no number is in hexadecimal digits there."""
    text = str(operation.attributes["value"])
    value = text[text.index("<") + 1 : text.index(">")]
    return math.nan if value.startswith("0x") else float(value)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(number) for number in sys.argv[3:]])
