"""JSON that came from elsewhere: contracts, configurations and manifests are read through here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lavit_edge.errors import UserError

LARGEST = 16 << 20  # bytes; a configuration with 50,000 calibration pictures has 7 MB


def read_json(file: Path) -> Any:
    """The value of a JSON file. Raises as :func:`parse_json`, and on a file that is too large or cannot be read."""
    try:
        if file.stat().st_size > LARGEST:
            raise UserError(f"{file} is too large for what it should hold (over {LARGEST >> 20} MB)")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not JSON ({error})") from error
    return parse_json(text, str(file))


def parse_json(text: str, source: str) -> Any:
    """The value of a JSON text; ``source`` names it in errors.

    Raises:
        UserError: not JSON, or what Python alone takes for it (NaN, Infinity), or what two readers may understand differently (an
            object with a name twice, half of a surrogate pair), or nested or numbered beyond reason.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_refuse)
        if "\\u" in text:  # only an escape can be half of a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise UserError(f"{source} is not JSON that can be read (nested too deeply)") from error
    except ValueError as error:  # JSONDecodeError, UnicodeEncodeError, and an integer with thousands of digits
        raise UserError(f"{source} is not JSON ({error})") from error
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same name twice")
    return fields


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def check_shape(value: Any, shape: Any, source: str, name: str = "") -> None:
    """Raises :class:`UserError` unless ``value`` is of type ``shape``, or has the fields of the object ``shape``, and so on."""
    wanted = dict if isinstance(shape, dict) else shape
    if not isinstance(value, wanted):
        raise UserError(f"{source}: {name or 'the whole'} must be of type {wanted.__name__}, not {type(value).__name__}")
    if isinstance(shape, dict):
        for key, inner in shape.items():
            if key not in value:
                raise UserError(f"{source}: {f'{name}.{key}'.lstrip('.')} is missing")
            check_shape(value[key], inner, source, f"{name}.{key}".lstrip("."))
