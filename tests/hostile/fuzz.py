"""``python tests/hostile/fuzz.py TARGET FOLDER [-max_total_time=S]``: coverage-guided fuzzing of what reads files from elsewhere.

FOLDER keeps the inputs that reached something new; what breaks the code is left as ``crash-*`` there. Options are libFuzzer's.
To add a reader, add a function to ``TARGETS`` that returns a :class:`Target`.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atheris
import numpy as np
from coremltools.proto import Model_pb2

with atheris.instrument_imports(include=["lavit_edge"]):
    from lavit_edge.artifact.mlprogram import MLProgram
    from lavit_edge.artifact.payload import Golden, Payload, read_payload
    from lavit_edge.contract import InputContract
    from lavit_edge.errors import UserError

ODD = (0, 1, -1, 2, 3, 17, 127, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, 0.5, -0.0, 1e300, 1e-300)
ODD_JSON = (*ODD, 10**400, None, True, False, "", " ", "cat", "a\nb", "\ud800", "\x00", [], {}, [[]], {"a": 1}, ["cat", "cat"])


@dataclass(frozen=True)
class Target:
    """
    Attributes:
        read: may raise :class:`UserError` with one line, and nothing else.
        good: inputs to start from.
        mutate: changes a part of an input's structure, or or raises ValueError where it sees none.
    """

    read: Callable[[bytes], object]
    good: list[bytes]
    mutate: Callable[[bytes, random.Random], bytes]


def contract() -> Target:
    good = InputContract(size=64, labels=("cat", "château", "犬"), resize="crop", crop_fraction=0.875)
    return Target(lambda data: InputContract.from_json(data.decode("utf-8", "replace")), [good.to_json().encode()], mutate_json)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """One value of the document replaced, removed or repeated."""
    document = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            places.append((value, key))
            walk(inner)

    walk(document)
    if not places:
        raise ValueError("nothing inside")
    holder, key = rng.choice(places)
    if rng.random() < 0.2:
        del holder[key]
    elif rng.random() < 0.2 and isinstance(holder, list):
        holder += holder
    else:
        holder[key] = rng.choice((*ODD_JSON, *(inner[at] for inner, at in places)))
    return json.dumps(document).encode()


def mlprogram() -> Target:
    """``model.mlmodel`` of a package whose other files are whole: a convolution, a ReLU, a reshape and a linear layer."""
    import torch
    from torch import nn

    from lavit_edge.export.golden import make_payload
    from lavit_edge.export.targets import TARGETS as EXPORTS

    small = InputContract(size=32, labels=("cat", "dog"))
    module = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 32, 32),))
    package = Path(tempfile.mkdtemp()) / "model.mlpackage"
    EXPORTS["coreml"].export(program, make_payload(program, small, {}, 8.0), package)
    file = package / "Data" / "com.apple.CoreML" / "model.mlmodel"

    def read(data: bytes) -> None:
        file.write_bytes(data)
        MLProgram(package)

    good = file.read_bytes()
    read(good)
    return Target(read, [good], mutate_model)


def mutate_model(data: bytes, rng: random.Random) -> bytes:
    """One field of one message of the specification set to something odd, removed, repeated, or taken from another message."""
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError
        raise ValueError from error
    messages = list(walk_messages(spec))
    message = rng.choice(messages)
    fields = message.ListFields()
    if not fields:
        raise ValueError("an empty message")
    field, value = rng.choice(fields)
    others = [other for other in messages if other.DESCRIPTOR is message.DESCRIPTOR]
    kind = rng.randrange(4)
    if kind == 0:
        message.ClearField(field.name)
    elif kind == 1:
        message.ParseFromString(rng.choice(others).SerializeToString())  # CopyFrom crashes where one is inside the other
    elif kind == 2 and hasattr(value, "extend") and len(value):
        value.extend(list(value)) if rng.random() < 0.5 else value.pop(rng.randrange(len(value)))
    else:
        names = [text for other in others for _, text in other.ListFields() if isinstance(text, str)]
        odd = rng.choice((*ODD, *names, "", "main", "a\nb", b"", b"\xff" * 8))
        try:
            if hasattr(value, "__setitem__") and len(value) and not hasattr(value, "keys"):
                value[rng.randrange(len(value))] = odd
            else:
                setattr(message, field.name, odd)
        except (TypeError, AttributeError) as error:  # of another type, or a message
            raise ValueError from error
    return spec.SerializeToString()


def walk_messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = [value[key] for key in value] if field.message_type.fields_by_name["value"].message_type else []
        else:
            inner = list(value) if hasattr(value, "extend") else [value]
        for item in inner:
            yield from walk_messages(item)


def payload() -> Target:
    """The ``golden`` entry, behind a sound contract and provenance."""
    rng = np.random.default_rng(0)

    def picture(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    golden = tuple(Golden(name, picture(3, 4, 3), picture(16, 16, 3), rng.random(2, np.float32), 8.0) for name in "abcd")
    sound = Payload(InputContract(size=32, labels=("cat", "dog")), {}, golden, 1.0).entries()
    return Target(lambda data: read_payload({**sound, "golden": data}), [bytes(sound["golden"])], mutate_golden)  # type: ignore[arg-type]


def mutate_golden(data: bytes, rng: random.Random) -> bytes:
    """A change in the JSON header, its length fitted or not; or a byte of the tensors."""
    length = int.from_bytes(data[:8], "little")
    head, tail = data[8 : 8 + length], bytearray(data[8 + length :])
    if tail and rng.random() < 0.2:
        tail[rng.randrange(len(tail))] ^= 1 << rng.randrange(8)
    else:
        head = mutate_json(head, rng)
    size = len(head) if rng.random() < 0.9 else rng.choice((0, 1, length, 2**31, 2**63))
    return size.to_bytes(8, "little") + head + bytes(tail)


TARGETS: dict[str, Callable[[], Target]] = {"contract": contract, "mlprogram": mlprogram, "payload": payload}


def main() -> None:
    target, folder = TARGETS[sys.argv[1]](), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(target.good):
        (folder / f"good{index}").write_bytes(data)

    def once(data: bytes) -> None:
        try:
            target.read(data)
        except UserError as error:
            if not str(error).isprintable():
                raise RuntimeError("not one line") from error

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.2:
            return atheris.Mutate(data, most)
        try:
            for _ in range(rng.choice((1, 1, 2, 4))):
                data = target.mutate(bytes(data), rng)
        except (ValueError, RecursionError):
            return atheris.Mutate(data, most)
        return data[:most]

    limits = ["-rss_limit_mb=6000", "-timeout=60", "-max_len=65536", "-len_control=0", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[3:], str(folder)], once, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
