"""Files: JSON that came from elsewhere, what appears whole or not at all, and SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A path of the same name in a temporary folder beside ``path``.

    When the block ends well, all that was written into that folder moves beside ``path``, over what was there; otherwise it
    vanishes.

    Raises:
        UserError: the folder of ``path`` cannot be written.
    """
    with _folder_beside(path) as folder:
        yield folder / path.name
        for new in sorted(folder.iterdir()):
            final = path.parent / new.name
            if final.is_dir():  # a folder cannot be replaced in one step: move the old one out of the way
                os.replace(final, folder / f"{new.name}.old")
            os.replace(new, final)


@contextmanager
def new_folder(path: Path, replace: bool) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name when the block ends well, and vanishes when it does not.

    A process killed inside the block leaves ``path`` as it was and a hidden ``.<name>.*`` folder beside it, which can be deleted.
    (Between the two renames of a replacement, for microseconds, the old folder is inside such a hidden one.)

    Raises:
        UserError: ``path`` cannot be written, or exists and ``replace`` is false.
    """
    path = path.resolve()
    if path.exists() and not replace and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} already exists and is not empty; choose another --out or remove it")
    with _folder_beside(path) as folder:
        folder.chmod(0o755)
        yield folder
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))  # stays if the second rename fails
            os.replace(path, old / path.name)
            os.replace(folder, path)
            shutil.rmtree(old)
        else:
            os.replace(folder, path)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A hidden folder on the disk of ``path``, removed in the end if it is still there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}); choose another --out") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_sha256(file: Path) -> str:
    """Hex digest of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
