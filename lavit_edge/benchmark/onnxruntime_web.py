"""ONNX Runtime Web, which PyPI does not have: fetched from npm once, pinned by version and SHA-256, kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from lavit_edge.errors import UserError

PIN = "onnxruntime-web.json"  # in the web app's folder
SECONDS = 600  # for 33 MB


def web_folder() -> Path:
    """The folder of the web app, ``apps/web`` of a checkout; its ``lib`` is also the runner's."""
    return Path(importlib.import_module("lavit_edge.web").__path__[0])


def fetch() -> Path:
    """The folder with the files of ONNX Runtime Web that are needed; downloads them if they are not in the cache.

    Raises:
        UserError: npm is missing or fails, or what it brings is not what is pinned.
    """
    pin = json.loads((web_folder() / PIN).read_text("utf-8"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lavit-edge-web"
    folder = cache / f"{pin['package']}-{pin['version']}-{pin['sha256'][:12]}"
    if folder.is_dir():  # it appears whole
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"{pin['package']} {pin['version']} comes from npm, and there is no npm here; install Node.js with npm")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        package = _pack(npm, f"{pin['package']}@{pin['version']}", Path(temporary))
        actual = hashlib.sha256(package.read_bytes()).hexdigest()
        if actual != pin["sha256"]:
            raise UserError(
                f"npm's {package.name} has SHA-256 {actual[:16]}..., {pin['sha256'][:16]}... is pinned; it is not used"
            )
        out = Path(temporary) / "out"
        out.mkdir()
        with tarfile.open(package) as archive:
            for name in pin["files"]:
                content = archive.extractfile(f"package/dist/{name}")
                assert content is not None  # the hash is that of a package that has it
                (out / name).write_bytes(content.read())
        with contextlib.suppress(OSError):  # another process was quicker
            os.replace(out, folder)
    return folder


def _pack(npm: str, package: str, folder: Path) -> Path:
    command = [npm, "pack", package, "--pack-destination", str(folder), "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm has not brought {package} within {SECONDS} s") from error
    found = list(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise UserError(f"npm cannot bring {package}: {said}")
    return found[0]
