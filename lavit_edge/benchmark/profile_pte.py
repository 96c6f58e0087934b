"""Times of the operators of a ``.pte``, by ExecuTorch's event tracer.

The runtime in the wheel records an ETDump when it is asked to: start and end of each instruction, and of each operator inside a
delegate call, for which XNNPACK has a clock of its own that counts whole microseconds.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch

from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import executorch_method, read_entries
from lavit_edge.benchmark.blocks import pte_blocks
from lavit_edge.benchmark.timing import TimedOp, Times, faster_half, timed
from lavit_edge.errors import UserError
from lavit_edge.toolchain import silent_stderr
from lavit_edge.verdict.plan import Op, Plan

DELEGATE, KERNEL = "DELEGATE_CALL", "OPERATOR_CALL"  # the runtime's names of instructions
# operators that XNNPACK may take into a neighbour, and those with multiply-adds -> how its own names begin
FUSED = {"Clamp": "Clamp", "StaticTranspose": "Transpose", "StaticReshape": "Static Reshape"}
NAMES = {
    "Conv2d": ("Convolution", "Fully Connected"),  # of 1 x 1: a product of its pixels
    "DepthwiseConv2d": ("Convolution",),
    "FullyConnected": ("Fully Connected",),
    "BatchMatrixMultiply": ("Batch Matrix Multiply",),
}
PLAIN = ("Add", "Convert", "Multiply", "Softmax")  # called the same in both
REST = "(delegate call)"  # what a delegate call takes beside its operators


def time_operators(path: Path, plan: Plan, threads: int, calls: int) -> Times:
    """
    Args:
        path: a ``.pte`` of XNNPACK or without a delegate.
        plan: what the verdict reads in it.

    Raises:
        UserError: not installed, damaged, made for another device, or of inputs other than one float32 tensor.
    """
    executorch_method(path, threads)  # refuses what would crash below
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc
    from executorch.extension.pybindings import portable_lib

    with silent_stderr(), tempfile.TemporaryDirectory() as folder:
        plain = portable_lib._load_for_executorch(str(path))
        observed = portable_lib._load_for_executorch(str(path), enable_etdump=True)
        inputs = [_input(plain, path)]
        runs = [lambda: plain.run_method("forward", inputs), lambda: observed.run_method("forward", inputs)]
        whole, profiled = timed(runs, threads, calls)
        observed.write_etdump_result_to_file(str(Path(folder) / "profile.etdump"))
        dump = deserialize_from_etdump_flatcc((Path(folder) / "profile.etdump").read_bytes())
    executions = [run for run in dump.run_data if run.name == "Execute"]
    instructions = _instructions(executions[1:])  # the first warms up
    try:
        payload = read_payload(read_entries(path))
        blocks, notes = pte_blocks(plan.ops, payload.provenance, payload.contract), []
    except UserError as error:
        blocks, notes = [""] * len(plan.ops), [f"Blocks are not known: {error}."]
    ops = []
    for number, group in itertools.groupby(zip(plan.ops, blocks, strict=True), key=lambda pair: pair[0].instruction):
        ops += _timed(instructions[number], list(group), notes)
    return Times(whole, profiled, ops, notes)


def _instructions(executions: list[Any]) -> dict[int, list[tuple[str, float]]]:
    """Number of the instruction -> its events, with their milliseconds; the event of the instruction itself is the last."""
    found: dict[int, list[tuple[str, float]]] = {}
    for same in zip(*(execution.events for execution in executions), strict=True):
        events = [event.profile_event for event in same]
        first = events[0]
        if first.chain_index < 0 or (first.name or "").startswith(
            "native_call_"
        ):  # the method; the kernel inside its instruction
            continue
        milliseconds = faster_half([(event.end_time - event.start_time) / 1e6 for event in events])
        found.setdefault(first.instruction_id, []).append((first.delegate_debug_id_str or first.name, milliseconds))
    return found


def _timed(events: list[tuple[str, float]], members: list[tuple[Op, str]], notes: list[str]) -> list[TimedOp]:
    """The operators of one instruction; of a delegate call, also what is left of it."""
    *inside, (kind, whole) = events
    last_op, last_block = members[-1]
    if kind == KERNEL:
        return [TimedOp(last_op.name, f"instruction {last_op.instruction}", last_block, last_op, whole)]
    run, unmatched = _aligned([name for name, _ in inside], members)
    if unmatched:
        notes.append(f"XNNPACK runs {len(inside)} operators for the {len(members)} of instruction {last_op.instruction}.")
        run = []
    ops = [
        TimedOp(op.name, f"instruction {op.instruction}, {name}", block, op, ms)
        for (name, ms), (op, block) in ((inside[index], member) for index, member in run)
    ]
    left = Op(REST, "view", (), (), instruction=last_op.instruction)
    return [*ops, TimedOp(REST, f"instruction {last_op.instruction}", last_block, left, whole - sum(op.ms for op in ops))]


def _aligned(names: list[str], members: list[tuple[Op, str]]) -> tuple[list[tuple[int, tuple[Op, str]]], bool]:
    """Index of each of XNNPACK's operators, with the operator of the file that it is; and whether any of either is left over.

    Both are in nearly the same order: the longest common row is matched, and what XNNPACK moved (it runs the keys' product before
    the conversion of the queries) by kind. It takes some of the file's operators into their neighbours: a clamp into the product
    before it, a transpose into the one behind it, a reshape into the next reshape. A reshape of its own takes no time.
    """
    fits = [[_fits(name, op.name) for op, _ in members] for name in names]
    length = [[0] * (len(members) + 1) for _ in range(len(names) + 1)]  # of the longest common row from here on
    for i, j in itertools.product(reversed(range(len(names))), reversed(range(len(members)))):
        length[i][j] = max(length[i + 1][j], length[i][j + 1], length[i + 1][j + 1] + 1 if fits[i][j] else 0)
    found: dict[int, int] = {}
    i = j = 0
    while i < len(names) and j < len(members):
        if fits[i][j] and length[i][j] == length[i + 1][j + 1] + 1:
            found[i] = j
            i, j = i + 1, j + 1
        elif length[i + 1][j] >= length[i][j + 1]:
            i += 1
        else:
            j += 1
    left = [j for j, (op, _) in enumerate(members) if j not in found.values() and op.name not in FUSED]
    for i in range(len(names)):
        moved = next((j for j in left if i not in found and fits[i][j]), None)
        if moved is not None:
            found[i] = moved
            left.remove(moved)
    extra = any(i not in found and not name.startswith(FUSED["StaticReshape"]) for i, name in enumerate(names))
    return [(i, members[j]) for i, j in sorted(found.items())], extra or bool(left)


def _fits(name: str, kind: str) -> bool:
    """Whether XNNPACK's operator ``name`` can be the file's operator ``kind``; it may call those not listed anything else."""
    known = NAMES.get(kind, (FUSED.get(kind, kind),))
    others = (start for starts in NAMES.values() for start in starts)
    return name.startswith(known) or (kind not in {**NAMES, **FUSED} and not name.startswith((*others, *FUSED.values(), *PLAIN)))


def _input(module: Any, path: Path) -> torch.Tensor:
    """Noise in the shape of the one input."""
    meta = module.method_meta("forward")
    tensors = [meta.input_tensor_meta(index) for index in range(meta.num_inputs())] if meta.num_inputs() == 1 else []
    if not tensors or tensors[0].dtype() != 6:  # exir.schema.ScalarType.FLOAT
        raise UserError(f"{path} must take one float32 tensor to be profiled; export it again")
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.rand(tuple(tensors[0].sizes()), generator=generator)
