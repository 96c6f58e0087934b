#!/usr/bin/env python3
"""Swift on a Linux machine, for tests of the iOS app's package: Debian's swiftlang in a root of its own, entered by namespaces.

    scripts/swift_toolchain.py run swift test --scratch-path /build/LavitEdge
    scripts/swift_toolchain.py lock                        # the versions that Debian has today -> swift_toolchain.lock

Needs no root where unprivileged user namespaces are allowed. Inside, the checkout is the current folder, /repository, read-only;
/build, which is in the cache and is HOME, is all that can be written; there is no network, and no process stays behind.
The root takes 2.6 GB.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from debian_packages import Unavailable, cache, empty_root, unpacked, write_lock

LOCK = Path(__file__).with_suffix(".lock")
WANTED = ("swiftlang", "libc6-dev", "libssl-dev", "libstdc++-14-dev", "git", "dash", "coreutils")
CACHE = cache("lavit-edge-swift")
REPOSITORY = Path(__file__).resolve().parent.parent
# Debian keeps Swift's clang and linker apart from its own; links in /usr/bin are made by an installation, which this is not
PATH = "/usr/libexec/swift/bin:/usr/bin"
# $1: the root; $2 and $3: folders that become /repository, read-only, and /build
ENTER = f"""
set -e
root="$1" repository="$2" build="$3"
shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --rbind /dev "$root/dev"
mount -t proc none "$root/proc"
mount -t tmpfs none "$root/tmp"
mount --bind "$repository" "$root/repository"
mount -o remount,bind,ro "$root/repository"
mount --bind "$build" "$root/build"
exec chroot "$root" /usr/bin/env -i -C /repository PATH={PATH} HOME=/build LC_ALL=C.UTF-8 "$@"
"""


def probe() -> None:
    """Raises :class:`Unavailable` unless this machine can hold and enter the root."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise Unavailable("Swift's root needs Linux on x86-64")
    for tool in ("apt-get", "dpkg-deb", "unshare"):
        if not shutil.which(tool):
            raise Unavailable(f"Swift's root needs {tool}, which is not installed")
    tried = subprocess.run([*_unshare(), "mount", "-t", "proc", "none", "/proc"], capture_output=True, text=True)
    if tried.returncode:
        raise Unavailable(f"no private namespaces here ({tried.stderr.strip()})")


def prepare() -> Path:
    """Downloads and unpacks what the lock file names, once; returns the root.

    Raises:
        Unavailable: no namespaces, or Debian does not have those packages any more.
    """
    probe()
    return unpacked(LOCK, CACHE, "amd64", _unpack)


def _unpack(debs: list[Path], root: Path) -> None:
    empty_root(root)
    for name in ("build", "repository"):
        (root / name).mkdir()
    for deb in debs:
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)


def command(root: Path, build: Path, argv: Sequence[str]) -> list[str]:
    """What runs ``argv`` in the root, in the checkout; the folder ``build`` is ``/build`` there."""
    build.mkdir(parents=True, exist_ok=True)
    return [*_unshare(), "sh", "-c", ENTER, "-", str(root), str(REPOSITORY), str(build.resolve()), *argv]


def _unshare() -> list[str]:
    return ["unshare", "-U", "-r", "-m", "-n", "-p", "-f", "--kill-child", "--propagation", "private"]


def main() -> int:
    match sys.argv[1:]:
        case ["lock"]:
            write_lock(LOCK, WANTED, "amd64")
        case ["run", *argv] if argv:
            try:
                return subprocess.run(command(prepare(), CACHE / "build", argv)).returncode
            except Unavailable as error:
                print(f"error: {error}", file=sys.stderr)
                return 2
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
