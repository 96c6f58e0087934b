"""Fetches a tool that the apps are built with from npm, pinned in apps/versions.json, and prints the folder that it lies in.

    python scripts/app_tools.py kotlin-compiler

It is kept in the user's cache (``$XDG_CACHE_HOME`` or ``~/.cache``, ``lavit-edge-apps``), so that it is fetched once.
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
from pathlib import Path

VERSIONS = Path(__file__).parent.parent / "apps" / "versions.json"
SECONDS = 900  # for 90 MB


def fetch(name: str) -> Path:
    """The folder with the unpacked npm package of a tool.

    Raises:
        RuntimeError: npm is missing or fails, or what it brings is not what is pinned.
    """
    pin = json.loads(VERSIONS.read_text("utf-8"))[name]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lavit-edge-apps"
    folder = cache / f"{name}-{pin['version']}-{pin['sha256'][:12]}"
    if folder.is_dir():  # it appears whole
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            f"{pin['package']} {pin['version']} comes from npm, and there is no npm here; install Node.js with npm"
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        package = _pack(npm, f"{pin['package']}@{pin['version']}", Path(temporary))
        actual = hashlib.sha256(package.read_bytes()).hexdigest()
        if actual != pin["sha256"]:
            raise RuntimeError(f"{package.name} has SHA-256 {actual[:16]}..., {pin['sha256'][:16]}... is pinned; it is not used")
        with tarfile.open(package) as archive:
            archive.extractall(temporary, filter="data")
        with contextlib.suppress(OSError):  # another process was quicker
            os.replace(Path(temporary) / "package", folder)
    return folder


def _pack(npm: str, package: str, folder: Path) -> Path:
    command = [npm, "pack", package, "--pack-destination", str(folder), "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"npm has not brought {package} within {SECONDS} s") from error
    found = list(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        raise RuntimeError(f"npm cannot bring {package}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return found[0]


if __name__ == "__main__":
    try:
        print(fetch(sys.argv[1]))
    except (RuntimeError, KeyError, IndexError) as error:
        sys.exit(f"{error}\nusage: python scripts/app_tools.py {' | '.join(json.loads(VERSIONS.read_text('utf-8')))}")
