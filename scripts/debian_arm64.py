"""What the emulated device is made of: Debian's packages for arm64, pinned in emulated_device.lock, and QEMU's user emulation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import debian_packages as debian

LOCK = Path(__file__).with_name("emulated_device.lock")
WANTED = ("adbd", "openssh-server", "dash", "coreutils", "findutils", "procps", "qemu-user:amd64")
CACHE = debian.cache("lavit-edge-device")


def prepare() -> Path:
    """Downloads and unpacks what the lock file names, once; returns the folder with ``root/`` and ``qemu-aarch64``.

    Raises:
        debian_packages.Unavailable: no apt here, or Debian does not have those packages any more.
    """
    return debian.unpacked(LOCK, CACHE, "arm64", unpack)


def unpack(debs: list[Path], whole: Path) -> None:
    """``whole/root`` of packages for arm64, and ``whole/qemu-aarch64``."""
    debian.empty_root(whole / "root")
    for deb in debs:
        if deb.name.startswith("qemu-user_"):
            archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE).stdout
            command = ["tar", "-x", "-C", whole, "--transform", "s,.*/,,", "./usr/bin/qemu-aarch64"]
            subprocess.run(command, input=archive, check=True)
        else:
            subprocess.run(["dpkg-deb", "-x", deb, whole / "root"], check=True)


def write_lock() -> None:
    """Resolves :data:`WANTED` against today's Debian."""
    debian.write_lock(LOCK, WANTED, "arm64")
