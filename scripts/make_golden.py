"""Writes tests/golden/, which the tests of every language read: camera frames with the input that each must become, and answers.

    python scripts/make_golden.py

``frames.json`` lists the frames: ``format``, ``width``, ``height``, ``rotation``, ``mirrored``, the planes with ``offset`` and
``length`` in ``<name>.frame`` and their strides, the contract, and ``<name>.input``, uint8 RGB ``size x size x 3``.
``answers.json`` has logits with their softmax and top three; ``decisions.json`` contracts of both formats and what is none,
logits with the answer by temperature and threshold, and frames with what a live view shows; ``report.json`` times with the field
``latency`` they become, and a report with its digest. ``selftest.json`` has payloads of the old format and the new, and what
their self-test says of answers. The pictures are those of lavit_edge/golden/, which are free of rights.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import lavit_edge
from lavit_edge.artifact.payload import Golden, Payload, read_payload, sample_of
from lavit_edge.benchmark.report import digest, latency
from lavit_edge.contract import InputContract
from lavit_edge.contract.answers import Steady, decide, probabilities
from lavit_edge.contract.contract import DECISION, FORMATS
from lavit_edge.contract.frames import Frame, Plane, to_rgb
from lavit_edge.contract.pictures import open_picture, to_input
from lavit_edge.selftest import check_close, check_logits, steps_off

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
PICTURES = sorted((Path(lavit_edge.__file__).parent / "golden").glob("*.png"))
# squash and crop, both filters, shrinking and enlarging
CONTRACTS = [
    InputContract(64, ("a", "b")),
    InputContract(96, ("a", "b"), resize="crop", crop_fraction=0.875),
    InputContract(64, ("a", "b"), resize="crop", interpolation="bilinear"),
    InputContract(160, ("a", "b"), interpolation="bilinear"),
]
SIZES = [(160, 120), (97, 61), (64, 99), (33, 33)]  # width, height; odd ones, and some smaller than the input
TURNS = list(product((0, 90, 180, 270), (False, True)))


def yuv(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """JFIF's planes of an RGB picture, chroma of every second pixel."""
    red, green, blue = (picture[..., channel].astype(float) for channel in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = (y, (128 + (blue - y) / 1.772)[::2, ::2], (128 + (red - y) / 1.402)[::2, ::2])
    return tuple(np.clip(plane.round(), 0, 255).astype(np.uint8) for plane in planes)  # type: ignore[return-value]


def strided(values: np.ndarray, row_stride: int, pixel_stride: int) -> Plane:
    """A plane with rubbish between its pixels and none behind the last, as cameras give it."""
    height, width = values.shape
    data = np.random.default_rng(0).integers(0, 256, height * row_stride, dtype=np.uint8)
    for row in range(height):
        data[row * row_stride : row * row_stride + width * pixel_stride : pixel_stride] = values[row]
    return Plane(data[: (height - 1) * row_stride + (width - 1) * pixel_stride + 1].tobytes(), row_stride, pixel_stride)


def frame_of(picture: np.ndarray, form: str, rotation: int, mirrored: bool) -> Frame:
    height, width, _ = picture.shape
    if form in ("bgra", "rgba"):
        alpha = np.full((height, width, 1), 255, np.uint8)
        channels = picture if form == "rgba" else picture[..., ::-1]
        pixels = np.concatenate([channels, alpha], -1).reshape(height, -1)
        plane = strided(pixels, 4 * width + (12 if form == "bgra" else 0), 1)
        planes = [Plane(plane.data, plane.row_stride, 4)]
    else:
        y, u, v = yuv(picture)
        if form == "nv21":
            turns = np.stack([v, u], -1).reshape(len(v), -1)
            planes = [strided(y, width, 1), dataclasses.replace(strided(turns, turns.shape[1], 1), pixel_stride=2)]
        else:
            planes = [strided(y, width + 7, 1), *(strided(plane, 2 * plane.shape[1] + 5, 2) for plane in (u, v))]
    return Frame(form, width, height, planes, rotation, mirrored)  # type: ignore[arg-type]


def frames() -> list[tuple[dict[str, Any], bytes, bytes]]:
    """Every format in every turn, sizes and contracts in rotation: what the list says, the frame's bytes, the input's."""
    found = []
    for index, (form, (rotation, mirrored)) in enumerate(product(("yuv_420_888", "nv21", "bgra", "rgba"), TURNS)):
        picture = open_picture(PICTURES[index % len(PICTURES)]).resize(SIZES[(index + index // 8) % len(SIZES)])
        contract = CONTRACTS[(index + index // 4) % len(CONTRACTS)]
        frame = frame_of(np.array(picture), form, rotation, mirrored)
        offsets = np.cumsum([0, *(len(plane.data) for plane in frame.planes)]).tolist()
        planes = [
            {"offset": offset, "length": len(plane.data), "row_stride": plane.row_stride, "pixel_stride": plane.pixel_stride}
            for offset, plane in zip(offsets, frame.planes, strict=False)
        ]
        facts = {key: getattr(frame, key) for key in ("format", "width", "height", "rotation", "mirrored")}
        name = f"{form}_{frame.width}x{frame.height}_{rotation}{'_mirrored' * mirrored}"
        square = to_input(Image.fromarray(to_rgb(frame)), contract)
        facts |= {"name": name, "planes": planes, "contract": contract.to_dict()}
        found.append((facts, b"".join(plane.data for plane in frame.planes), square.tobytes()))
    return found


def answers(count: int = 12, classes: int = 10) -> list[dict[str, Any]]:
    """float32 logits, some of them huge or equal, with softmax in float64 and the three largest, the first of equals first."""
    rng, found = np.random.default_rng(0), []
    for index in range(count):
        logits = (rng.normal(size=classes) * 10.0 ** (index % 4 - 1)).astype(np.float32)
        if index % 3 == 2:
            logits[1] = logits[6] = logits.max()
        exponents = np.exp(logits.astype(np.float64) - float(logits.max()))
        top = sorted(range(classes), key=lambda label: (-logits[label], label))[:3]
        softmax = (exponents / exponents.sum()).round(12)  # the last bits differ by CPU
        found.append({"logits": logits.tolist(), "softmax": softmax.tolist(), "top": top})
    return found


def decisions() -> dict[str, Any]:
    """Contracts, answers and live views; every probability is at least 1e-6 away from what decides about it."""
    contract = InputContract(32, ("cat", "château", "犬"))
    plain, deciding = contract.to_dict(), dataclasses.replace(contract, temperature=0.64, threshold=0.75).to_dict()
    texts = [json.dumps(each, ensure_ascii=False) for each in (plain, deciding, deciding | {"temperature": 2, "threshold": 0})]
    good = [InputContract.from_json(text) for text in texts]
    bad: list[dict[str, Any]] = [plain | {"temperature": 1.0}, plain | {"threshold": 0.5}, deciding | {"format": FORMATS[0]}]
    bad += [deciding | {name: value} for name in DECISION for value in (-0.5, "0.5", None, True)]
    bad += [deciding | {"threshold": 1}, deciding | {"temperature": 0}, deciding | {"format": "lavit_edge.contract/3"}]
    bad += [{name: value for name, value in deciding.items() if name != missing} for missing in DECISION]
    contracts = [
        {"text": text, **{name: getattr(each, name) for name in DECISION}} for text, each in zip(texts, good, strict=True)
    ]
    contracts += [{"text": json.dumps(each, ensure_ascii=False), "refused": True} for each in bad]
    rng, answered = np.random.default_rng(1), []
    for index, (temperature, threshold) in enumerate(product((0.05, 0.64, 1.0, 7.5), (0.0, 0.4, 0.8, 0.95))):
        logits = (rng.normal(size=10) * (0.5, 2, 8)[index % 3]).astype(np.float32)
        if index % 5 == 4:
            logits[[1, 6]] = logits.max() + 1  # equal: the first of them
        scaled = dataclasses.replace(contract, temperature=temperature, threshold=threshold)
        probable = probabilities(logits, scaled)
        fields = {"logits": logits.tolist(), "temperature": temperature, "threshold": threshold}
        answered.append({**fields, "probabilities": probable.round(12).tolist(), "answer": decide(probable, threshold)})
    live = [_live(threshold, seed) for seed, threshold in enumerate((0.0, 0.6, 0.75, 0.9))]
    return {"contracts": contracts, "answers": answered, "live": live}


def _live(threshold: float, seed: int) -> dict[str, Any]:
    """Two seconds of frames of one thing, then of another, then of nothing known, with a late frame and one out of order."""
    rng, steady, frames = np.random.default_rng(seed), Steady(threshold), []
    seconds = 100.0
    for frame in range(90):
        seconds += (0.066, 0.033, 0.4, -0.01)[0 if frame % 13 else 1 + frame // 13 % 3]
        sure = np.zeros(4)
        sure[(0, 0, 2, 3, 3)[frame // 18]] = (3, 1, 3, 0, 4)[frame // 18]
        probable = probabilities((sure + rng.normal(size=4) * 0.7).astype(np.float32), CONTRACTS[0]).round(12)
        shown = steady.add(round(seconds, 3), probable)
        assert steady.average is not None
        fields = {"seconds": round(seconds, 3), "probabilities": probable.tolist()}
        frames.append({**fields, "average": steady.average.round(12).tolist(), "shown": shown})
    return {"threshold": threshold, "frames": frames}


def report() -> dict[str, Any]:
    """Times and the field that they become, and what the digest of a small document is.

    Run ``i`` of a series takes ``5,000,000 + 7919 i mod 900,001`` ns and begins at ``i step_ns``.
    """
    series = []
    for runs, step in ((1, 0), (7, 9_000_000), (150, 1_000_000_000), (20_001, 6_000_000)):
        samples = [5_000_000 + 7919 * run % 900_001 for run in range(runs)]
        series.append({"runs": runs, "step_ns": step, "latency": latency(samples, [run * step for run in range(runs)])})
    document = {
        "b": [1, None, True, -7, 9007199254740991],
        "a": '"\\\b\f\n\r\t\x01\x7f\u2028é😀',
        "€": {},
        "sha256": "not counted",
    }
    return {"series": series, "document": document, "sha256": digest(document)}


def selftests() -> dict[str, Any]:
    """Payloads by format, and for answers to their pictures: which check fails first, and the figures of a report."""
    contract = InputContract(32, ("cat", "château", "犬"))
    expected = np.array([[3, 0, -3], [0, 2, 1], [-10000, 1, 0.25], [0.5, 0.25, 1]], np.float32)
    golden = []
    for index, logits in enumerate(expected):
        picture = (np.arange(6 * (index + 1)).reshape(index + 1, 2, 3) * 37 % 256).astype(np.uint8)
        sample = sample_of(to_input(Image.fromarray(picture), contract))
        golden.append(Golden("abcd"[index], picture, sample, logits, [8.0, 16.5, 4.0, 2.25][index]))
    entries = Payload(contract, {"checkpoint": {"name": "made"}}, tuple(golden), 0.0625, 0.5, 2).entries()
    payloads = {"2": entries, "1": {**entries, "golden": _as_old(entries["golden"], tolerance=8.0)}}  # type: ignore[arg-type]
    changes = {
        "as expected": (0, 0, 0, 0),
        "all classes higher": (50, 50, 50, 50),
        "within tolerances": ([0.4, 0, 0], [-0.9, 0, 0], 0, 0),
        "within tolerances, none close": ([0.4, 0, 0], [-0.9, 0, 0], [0, 0.1, 0], [0, 0.1, 0]),
        "one close": (0, [-0.9, 0, 0], [0, 0.1, 0], [0, 0.1, 0]),
        "beyond the first tolerance": ([1, 0, 0], 0, 0, 0),
        "beyond the second": (0, [0, -1.75, 0], 0, 0),
        "beyond the third, whose class is masked": (0, 0, [0, 0, 0.5], 0),
        "another label leads by less than the tolerance": (0, [0, -0.6, 0.6], 0, 0),
        "far beyond": ([0, -1000, 0], 0, 0, 0),
        "another label leads by more": (0, 0, [0, -0.374, 0.38], 0),
    }
    cases = []
    for format_, texts in payloads.items():
        payload = read_payload(texts)
        for name, change in changes.items():
            answers = [logits + np.asarray(each, np.float32) for logits, each in zip(expected, change, strict=True)]
            cases.append({"payload": format_, "name": name, **_judged(payload, answers)})
    texts = {
        format_: {name: value if isinstance(value, str) else base64.b64encode(value).decode() for name, value in entries.items()}
        for format_, entries in payloads.items()
    }
    return {"payloads": texts, "cases": cases}


def _as_old(golden: bytes, tolerance: float) -> bytes:
    """The golden pictures as format 1 has them: one tolerance for all, and the step not stored."""
    length = int.from_bytes(golden[:8], "little")
    header = json.loads(golden[8 : 8 + length])
    facts = {"format": "lavit_edge.golden/1", "names": list("abcd"), "tolerance_steps": tolerance}
    header["__metadata__"]["golden"] = json.dumps(facts)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + golden[8 + length :]


def _judged(payload: Payload, answers: list[np.ndarray]) -> dict[str, Any]:
    checks = [check_logits(golden, each, payload) for golden, each in zip(payload.golden, answers, strict=True)]
    checks.append(check_close(answers, payload))
    worst = max(float(steps_off(golden, each, payload).max()) for golden, each in zip(payload.golden, answers, strict=True))  # type: ignore[union-attr]
    return {
        "answers": [each.tolist() for each in answers],
        "failed": next((check.name for check in checks if not check.passed), None),
        "same_top1": sum(int(a.argmax() == b.logits.argmax()) for a, b in zip(answers, payload.golden, strict=True)),
        "worst_millisteps": round(1000 * worst),
    }


def main() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for old in filter(Path.is_file, GOLDEN.iterdir()):
        old.unlink()
    listed = []
    for facts, data, square in frames():
        (GOLDEN / f"{facts['name']}.frame").write_bytes(data)
        (GOLDEN / f"{facts['name']}.input").write_bytes(square)
        listed.append(facts)
    made = {"answers": answers(), "decisions": decisions(), "report": report(), "selftest": selftests()}
    for name, value in ({"frames": listed} | made).items():
        (GOLDEN / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
