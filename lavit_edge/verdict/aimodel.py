"""Reads a Core AI ``.aimodel``: the operations of its program. Which unit runs each is Core AI's choice, on the device."""

from __future__ import annotations

import collections
import math
from pathlib import Path

from lavit_edge.artifact.aimodel import operations
from lavit_edge.errors import UserError
from lavit_edge.verdict.plan import Array, Op, Plan, kind_of

PRODUCTS = ("conv2d", "batch_matmul")
MOVES = ("pad", "reshape", "transpose")
CLAMPS = ("relu", "maximum", "minimum", "clamp")
WIDTHS = {"si8": 1, "ui8": 1, "i1": 1, "f16": 2}
NOTES = (
    "Core AI chooses the unit for each operation on the device; here all are taken to run on the Neural Engine, and int8 to stay "
    "int8 there. A product counts as int8 when both its operands are dequantised and its result is quantised.",
)


def read(path: Path) -> Plan:
    """
    Raises:
        UserError: Core AI is not installed, or the file is damaged.
    """
    return _Reader(path).plan()


class _Reader:
    def __init__(self, path: Path) -> None:
        self.found = operations(path)
        self.constant: list[bool] = []
        self.users: dict[int, list[int]] = collections.defaultdict(list)
        for number, operation in enumerate(self.found):
            taken = operation["operands"]
            known = bool(taken) and all(n >= 0 and self.constant[n] for n in taken)
            self.constant.append(known or operation["name"] == "constant")
            for operand in taken:
                self.users[operand].append(number)
        products = [n for n, each in enumerate(self.found) if each["name"] in PRODUCTS]
        if not products:
            raise UserError(f"{path.name} multiplies nothing that is known; export it again")
        # what follows an int8 product up to its quantize; behind any other nothing
        self.tails = {n: self._tail(n) for n in products}

    def plan(self) -> Plan:
        inside = {n for tail in self.tails.values() for n in tail}
        ops = []
        for number, operation in enumerate(self.found):
            if operation["name"] == "output" or self.constant[number] or number in inside:
                continue
            if operation["name"] in (*MOVES, "dequantize") and self._for_int8_alone(number):
                continue  # part of the products that read it
            ops.append(self._product(number) if number in self.tails else self._other(number))
        return Plan("Core AI", tuple(ops), calls=1, notes=NOTES)

    def _other(self, number: int) -> Op:
        operation = self.found[number]
        kind = kind_of(operation["name"])
        reads = tuple(self._array(n) for n in operation["operands"] if n < 0 or self.found[n]["shape"])
        return Op(operation["name"], kind, reads, (self._array(number),), int8=operation["name"] in ("quantize", "dequantize"))

    def _product(self, number: int) -> Op:
        operation, tail = self.found[number], self.tails[number]
        x, weight = operation["operands"][:2]
        output, shape = operation["shape"], self.found[weight]["shape"]
        conv = operation["name"] == "conv2d"
        macs = math.prod(output) * (math.prod(shape[1:]) if conv else shape[-2])
        if tail:  # the codes are what it reads and writes
            x, weight = (self.found[self._maker(n)]["operands"][0] for n in (x, weight))
        biases = [n for t in tail for n in self.found[t]["operands"] if self.constant[n] and self.found[t]["name"] == "add"]
        return Op(
            operation["name"],
            "product",
            tuple(map(self._array, (x, weight, *biases))),
            (self._array(tail[-1] if tail else number),),
            macs,
            bool(tail),
            depthwise=conv and shape[1] == 1 and shape[0] > 1,
        )

    def _array(self, number: int) -> Array:
        if number < 0:  # the picture
            first = next(each for each in self.found if -1 in each["operands"])
            return Array(math.prod(first["shape"]), 4)
        operation = self.found[number]
        return Array(math.prod(operation["shape"]), WIDTHS.get(operation["type"], 4), self.constant[number])

    def _maker(self, number: int) -> int:
        """The operation whose value it is, before it was padded or moved."""
        while number >= 0 and self.found[number]["name"] in MOVES:
            number = self.found[number]["operands"][0]
        return number

    def _tail(self, number: int) -> list[int]:
        operands = [self._maker(n) for n in self.found[number]["operands"][:2]]
        if any(n < 0 or self.found[n]["name"] != "dequantize" for n in operands):
            return []
        tail: list[int] = []
        while len(after := self.users[tail[-1] if tail else number]) == 1:
            name, taken = self.found[after[0]]["name"], self.found[after[0]]["operands"]
            bias = name == "add" and any(n >= 0 and self.constant[n] for n in taken)
            if name not in (*MOVES, *CLAMPS, "quantize") and not bias:
                return []
            tail.append(after[0])
            if name == "quantize":
                return tail
        return []

    def _for_int8_alone(self, number: int) -> bool:
        """Whether all that reads it, by way of what moves, are int8 products."""
        users = self.users[number]
        return bool(users) and all(
            bool(self.tails.get(n)) or (self.found[n]["name"] in MOVES and self._for_int8_alone(n)) for n in users
        )
