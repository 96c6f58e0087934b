#!/usr/bin/env python3
"""From an empty folder to a Swift program that calls the classifier, by the very lines that docs/apps.md has a person type.

    scripts/embed_swift.py                       # on Linux, in the toolchain's root; on a Mac, with its own Swift

The package is added by its URL, which here is a git repository made of this checkout's files, tagged as a release is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import swift_toolchain

ROOT = Path(__file__).resolve().parent.parent
# what SwiftPM looks at
FILES = ("Package.swift", "apps/ios/LavitEdge")


def blocks() -> dict[str, str]:
    """What docs/apps.md has a person type: two files, named by their paths in front of their lines, and ``swift build``."""
    page = (ROOT / "docs" / "apps.md").read_text("utf-8")
    files = re.findall(r"`(Package\.swift|Sources/main\.swift)`\n\n```swift\n(.*?)```", page, re.DOTALL)
    commands = re.findall(r"```sh\n(swift build)\n```", page)
    return {**dict(files), "build": commands[0]}


def typed() -> int:
    """How many lines a person types."""
    return sum(len(body.splitlines()) for body in blocks().values())


def release(folder: Path, version: str) -> None:
    """Makes a git repository of the package, as its URL would give it."""
    for name in FILES:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", version], ["tag", version]):
        subprocess.run(["git", "-C", folder, *words], check=True)


def embed(folder: Path, seen_as: str, run: Callable[..., subprocess.CompletedProcess[str]]) -> subprocess.CompletedProcess[str]:
    """Builds the program in ``folder``, which is empty; ``run`` runs a command to which that folder is ``seen_as``."""
    made = blocks()
    url, version = re.findall(r'url: "([^"]+)", from: "([^"]+)"', made["Package.swift"])[0]
    release(folder / "lavit-edge", version)
    manifest = made["Package.swift"].replace(url, f"file://{seen_as}/lavit-edge")
    (folder / "seeing" / "Sources").mkdir(parents=True)
    (folder / "seeing" / "Package.swift").write_text(manifest, encoding="utf-8")
    (folder / "seeing" / "Sources" / "main.swift").write_text(made["Sources/main.swift"], encoding="utf-8")
    return run(*made["build"].split(), "--package-path", f"{seen_as}/seeing")


def main() -> int:
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        words = list(argv) if sys.platform == "darwin" else swift_toolchain.command(root, folder, argv)
        return subprocess.run(words, text=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            root = Path() if sys.platform == "darwin" else swift_toolchain.prepare()
        except swift_toolchain.Unavailable as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        done = embed(folder, str(folder.resolve()) if sys.platform == "darwin" else "/build", run)
    print(f"{typed()} lines typed, exit status {done.returncode}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
