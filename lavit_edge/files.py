"""Files: JSON that came from elsewhere, what appears whole or not at all, and SHA-256."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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


def write_json(file: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all. Raises :class:`OSError`."""
    write_whole(file, (json.dumps(value, ensure_ascii=False) + "\n").encode())


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file, whole or not at all. Raises :class:`OSError`."""
    temporary = file.with_name(f"{file.name}.part")
    temporary.write_bytes(content)
    os.replace(temporary, file)


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
        follow_umask(folder)
        for new in sorted(folder.iterdir()):
            final = path.parent / new.name
            if final.is_dir():  # a folder cannot be replaced in one step: move the old one out of the way
                os.replace(final, folder / f"{new.name}.old")
            os.replace(new, final)


@contextmanager
def new_folder(path: Path, replaces: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name when the block ends well, and vanishes when it does not.

    Whether the place is free is asked at the end as well, by the rename itself: of two processes with the same ``path`` one
    gets it, the other's result stays beside it under a name of its own. A process killed inside the block leaves ``path`` as it
    was and a hidden ``.<name>.*`` folder beside it, which can be deleted. (Between the two renames of a replacement, for
    microseconds, the old folder is inside such a hidden one.)

    Args:
        replaces: names in a folder ``path`` that may be replaced if they are at the end what they were at the start. Everything
            else there stays.

    Raises:
        UserError: ``path`` cannot be written, holds something and ``replaces`` is empty, or was taken or changed meanwhile; then
            the message says where the result is.
    """
    path = path.resolve()
    before = _listed(path, replaces)
    if not before and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} already exists and is not empty; choose another --out or remove it")
    with _folder_beside(path) as folder:
        yield folder
        follow_umask(folder)
        try:
            if before:
                _replace(path, folder, replaces, before)
            else:
                os.rename(folder, path)  # an empty folder gives way, nothing else does
        except OSError as error:
            spare = folder.with_name(folder.name.removeprefix("."))
            os.rename(folder, spare)
            raise UserError(f"{path} was taken or changed meanwhile ({error.strerror}); the result is in {spare}") from error


def _replace(path: Path, folder: Path, replaces: Collection[str], before: dict[str, tuple[int, ...]]) -> None:
    """Puts ``folder`` in the place of ``path``, whose other files move over. Raises :class:`OSError`; both are whole then."""
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)) / path.name
    os.rename(path, old)  # from here on nobody changes it
    if _listed(old, replaces) != before:
        os.rename(old, path)
        old.parent.rmdir()
        raise OSError(errno.EEXIST, "another result is there now")
    for other in old.iterdir():
        if other.name not in replaces:
            os.rename(other, folder / other.name)
    os.rename(folder, path)
    shutil.rmtree(old.parent)


def _listed(path: Path, names: Collection[str]) -> dict[str, tuple[int, ...]]:
    """What tells a change of those of ``names`` that are in the folder ``path``: number, size and time of each file."""
    found = [item for name in names if (path / name).exists() for item in (path / name, *(path / name).rglob("*"))]
    states = {item.relative_to(path).as_posix(): item.lstat() for item in found}
    return {name: (state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states.items()}


def follow_umask(path: Path) -> None:
    """Gives a file, or a folder and all in it, the modes that ``open`` and ``mkdir`` give.

    safetensors 0.8 and coremltools 9 write by way of temporary files, which nobody but their owner may read.
    """
    probe = path.parent / f".{path.name}.umask"
    probe.mkdir()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    for item in (path, *path.rglob("*")):
        if not item.is_symlink():
            item.chmod(mode if item.is_dir() else mode & 0o666)


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


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keeps other processes that ask out of a folder while the block lasts; the system ends the claim with the process.

    A lock of POSIX's kind, which a process that was forked does not hold on to. Where the disk or the system has none, nothing
    is kept out.

    Raises:
        UserError: another process has it.
    """
    file = folder / ".lock"
    with file.open("w") as stream:
        if _locked_by_another(stream) or not file.exists():  # it may have ended, and removed the file, between the two
            raise UserError(f"another process is writing to {folder}; wait for it, or choose another --out")
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def _locked_by_another(stream: IO[str]) -> bool:
    try:
        import fcntl

        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return False
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    return False


def file_sha256(file: Path) -> str:
    """Hex digest of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
