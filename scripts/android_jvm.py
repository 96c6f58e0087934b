"""ExecuTorch's own libraries for Android on a JVM of Linux, so that the app's classes run on what a phone runs them on.

    python scripts/android_jvm.py lock    # the arm64 JVM that Debian has today -> android_jvm.lock

Their C library is Android's. tests/apps/jvm/bionic.c is what glibc lacks of it; the versions of symbols, of which glibc has
others, are taken out of copies. An arm64 JVM runs under QEMU's user emulation, as Debian's packages lie in a folder.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import debian_arm64
import debian_packages as debian

LOCK = Path(__file__).with_name("android_jvm.lock")
WANTED = ("openjdk-21-jre-headless", "libc6", "libgcc-s1", "libstdc++6", "zlib1g", "qemu-user:amd64")
SHIM = Path(__file__).parent.parent / "tests" / "apps" / "jvm" / "bionic.c"
COMPILERS = {"x86_64": "gcc", "arm64-v8a": "aarch64-linux-gnu-gcc"}
EMPTY = ("m", "dl", "log", "android")  # that Android's libraries ask for beside its C library
PT_DYNAMIC, UNKNOWN = 2, 0x6000FFFF
VERSIONS = {0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF}  # DT_VERSYM, DT_VERDEF, DT_VERNEED and their counts


def libraries(native: Mapping[str, bytes], abi: str, folder: Path) -> None:
    """Writes ``native``, by file name, to ``folder``, with what they need of Android.

    A JVM is to have ``-agentpath:folder/libc.so``, and ``folder`` in LD_LIBRARY_PATH.

    Raises:
        FileNotFoundError: there is no compiler for ``abi`` here.
        subprocess.CalledProcessError: it fails.
    """
    for name, content in native.items():
        (folder / name).write_bytes(without_versions(content))
    build = [COMPILERS[abi], "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    needs = ["-Wl,--no-as-needed", "-lm", "-ldl"]
    subprocess.run([*build, SHIM, "-Wl,-soname,libc.so", *needs, "-o", folder / "libc.so"], check=True)
    for name in EMPTY:
        command = [*build, "-x", "c", "/dev/null", f"-Wl,-soname,lib{name}.so", "-o", folder / f"lib{name}.so"]
        subprocess.run(command, check=True)


def without_versions(library: bytes) -> bytes:
    """A 64-bit ELF library whose symbols have no versions: glibc takes whatever has their names."""
    made = bytearray(library)
    start, count = struct.unpack_from("<Q", made, 32)[0], struct.unpack_from("<H", made, 56)[0]
    for header in range(start, start + 56 * count, 56):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", made, header)
        for entry in range(offset, offset + size, 16) if kind == PT_DYNAMIC else ():
            if struct.unpack_from("<Q", made, entry)[0] in VERSIONS:
                struct.pack_into("<Q", made, entry, UNKNOWN)
    return bytes(made)


def emulated_java(cpu: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The arm64 JVM as a command, and the environment in which it finds the :func:`libraries` in ``folder``.

    Raises:
        debian_packages.Unavailable: no apt here, or Debian does not have those packages any more.
    """
    whole = debian.unpacked(LOCK, debian.cache("lavit-edge-jvm"), "arm64", _unpack)
    environment = {"QEMU_CPU": cpu, "QEMU_LD_PREFIX": str(whole / "root"), "QEMU_SET_ENV": f"LD_LIBRARY_PATH={folder}"}
    # short: the compiler that optimises more costs more than it saves
    options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-agentpath:{folder / 'libc.so'}"]
    java = whole / "root/usr/lib/jvm/java-21-openjdk-arm64/bin/java"
    return [str(whole / "qemu-aarch64"), str(java), *options], environment


def _unpack(debs: list[Path], whole: Path) -> None:
    debian_arm64.unpack(debs, whole)
    for link in (whole / "root").rglob("*"):
        if link.is_symlink() and os.readlink(link).startswith("/"):  # it would lead out of the root
            target = whole / "root" / os.readlink(link)[1:]
            link.unlink()
            link.symlink_to(os.path.relpath(target, link.parent))


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        sys.exit("usage: python scripts/android_jvm.py lock")
    debian.write_lock(LOCK, WANTED, "arm64", only=True)
