"""The digest inside an artifact: SHA-256 of all its bytes, taken with the digest's own 64 characters as zeros.

It shows that an artifact is whole and unchanged, and it is the artifact's name: two exports of the same checkpoint with the same
tools have the same digest. Whoever changes an artifact on purpose can seal it again; against that there are signatures.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from lavit_edge.errors import UserError

MARK = b"org.lavit_edge.sha256:"
BLANK = b"0" * 64
UNSEALED = (MARK + BLANK).decode()  # what an artifact says before :func:`seal`
FIELD = re.compile(re.escape(MARK) + rb"([0-9a-f]{64})")


def content_sha256(path: Path) -> str:
    """Hex digest of an artifact, without what it says of itself.

    A file: of its bytes with the digest's characters as zeros. A package (``.mlpackage``, ``.aimodel``): of one line for each
    file in the order of their paths, ``<sha256 of the file, digest as zeros>  <path>\\n``.

    Raises:
        UserError: no such artifact, it cannot be read, or the package holds a link or something that is no file.
    """
    try:
        if not path.is_dir():
            return _file_sha256(path)
        lines = [f"{_file_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in _files(path)]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def seal(path: Path) -> None:
    """Writes the digest into an artifact that holds :data:`UNSEALED` in one place."""
    file, offset, _ = _stored(path)
    digest = content_sha256(path)
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(digest.encode())


def check_seal(path: Path) -> str:
    """The digest of an artifact. Raises :class:`UserError` unless it is the one that the artifact says."""
    actual = content_sha256(path)
    _, _, stored = _stored(path)
    if stored != actual:
        raise UserError(f"{path} is not what was exported: its bytes have SHA-256 {actual[:16]}..., it says {stored[:16]}...")
    return actual


def _stored(path: Path) -> tuple[Path, int, str]:
    """The file that holds the digest, where in it, and what it says."""
    found = [
        (file, match.start(1), match[1].decode())
        for file in (_files(path) if path.is_dir() else [path])
        for match in FIELD.finditer(file.read_bytes())
    ]
    if len(found) != 1:
        what = "has no digest" if not found else f"has {len(found)} digests"
        raise UserError(f"{path} {what}; only an artifact exported by lavit-edge can test itself")
    return found[0]


def _files(package: Path) -> list[Path]:
    files = []
    for folder, folders, names in os.walk(package):
        for name in [*folders, *names]:
            file = Path(folder, name)
            if file.is_symlink() or not (file.is_dir() or file.is_file()):
                raise UserError(f"{package}: {file.relative_to(package).as_posix()!r} is a link or no plain file")
        files += [Path(folder, name) for name in names]
    return sorted(files, key=lambda file: file.relative_to(package).as_posix())


def _file_sha256(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"{file} does not exist or is no plain file")
    return hashlib.sha256(FIELD.sub(MARK + BLANK, file.read_bytes())).hexdigest()
