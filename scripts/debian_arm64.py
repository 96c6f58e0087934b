"""What the emulated device is made of: Debian's packages for arm64, pinned in emulated_device.lock, and QEMU's user emulation.

apt fetches them from the machine's own source of Debian and checks its signatures; the lock file has the SHA-256 of each.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK = Path(__file__).with_name("emulated_device.lock")
SUITE = "trixie"
WANTED = ("adbd", "openssh-server", "dash", "coreutils", "findutils", "procps", "qemu-user:amd64")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lavit-edge-device"


class Unavailable(Exception):
    """This machine cannot have the device; the text says why."""


def prepare() -> Path:
    """Downloads and unpacks what the lock file names, once; returns the folder with ``root/`` and ``qemu-aarch64``.

    Raises:
        Unavailable: no apt here, or Debian does not have those packages any more.
    """
    done = CACHE / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes want it at once
        if not done.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
                whole = Path(temporary, "whole")
                _unpack(_download(Path(temporary)), whole)
                whole.rename(done)
    return done


def _download(folder: Path) -> list[Path]:
    """The packages of the lock file, verified by apt's signatures and by the SHA-256 of each."""
    wanted = [line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    debs = folder / "debs"
    debs.mkdir()
    with _apt(folder) as environment:
        names = [f"{name}:{architecture}={version}" for name, architecture, version, _ in wanted]
        got = subprocess.run(["apt-get", "-q", "download", *names], cwd=debs, env=environment, capture_output=True, text=True)
    if got.returncode:
        reason = (got.stderr.strip().splitlines() or ["?"])[0]
        raise Unavailable(f"Debian {SUITE} has moved on from {LOCK.name} ({reason}); scripts/emulated_device.py lock follows it")
    hashes = {hashlib.sha256(deb.read_bytes()).hexdigest(): deb for deb in debs.iterdir()}
    if set(hashes) != {digest for *_, digest in wanted}:
        raise Unavailable(f"the packages that apt downloaded are not those of {LOCK.name}")
    return list(hashes.values())


def _unpack(debs: list[Path], whole: Path) -> None:
    root = whole / "root"
    for name in ("bin", "lib", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        if deb.name.startswith("qemu-user_"):
            archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE).stdout
            command = ["tar", "-x", "-C", whole, "--transform", "s,.*/,,", "./usr/bin/qemu-aarch64"]
            subprocess.run(command, input=archive, check=True)
        else:
            subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
    for name in ("data", "dev", "home", "proc", "root", "run", "sys", "tmp"):
        (root / name).mkdir(exist_ok=True)


@contextlib.contextmanager
def _apt(folder: Path) -> Iterator[dict[str, str]]:
    """An environment in which apt is an arm64 machine of :data:`SUITE`, with nothing installed, on this machine's own source."""
    form = "$(ORIGIN) $(LABEL) $(CODENAME) $(COMPONENT) $(REPO_URI)"
    listed = subprocess.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], capture_output=True, text=True)
    lines = [line.split() for line in listed.stdout.splitlines()]
    found = [line[4] for line in lines if line[:2] == ["Debian"] * 2 and line[3] == "main" and line[2].isalpha()]
    if not found:
        raise Unavailable("the machine's apt has no source of Debian's packages (or never ran apt-get update)")
    home = folder / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (home / name).mkdir(parents=True)
    (home / "status").touch()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (home / "source.list").write_text(f"deb [signed-by={keyring}] {found[0]} {SUITE} main\n")
    settings = {
        "Dir::State": home / "state",
        "Dir::State::status": home / "status",
        "Dir::Cache": home / "cache",
        "Dir::Etc::sourcelist": home / "source.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": "arm64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
    (home / "apt.conf").write_text(text + 'APT::Architectures { "arm64"; "amd64"; };\n')
    environment = {**os.environ, "APT_CONFIG": str(home / "apt.conf"), "LC_ALL": "C"}
    updated = subprocess.run(["apt-get", "-q", "update"], env=environment, capture_output=True, text=True)
    if updated.returncode:
        raise Unavailable(f"apt cannot read Debian {SUITE} ({(updated.stderr.strip().splitlines() or ['?'])[0]})")
    yield environment


def write_lock() -> None:
    """Resolves :data:`WANTED` against today's Debian and writes names, versions and hashes."""
    with tempfile.TemporaryDirectory() as temporary, _apt(Path(temporary)) as environment:
        resolve = ["apt-get", "-s", "--no-install-recommends", "install", *WANTED]
        told = subprocess.run(resolve, env=environment, check=True, capture_output=True, text=True).stdout
        packages = []
        for line in told.splitlines():
            if line.startswith("Inst "):
                name, _, architecture = line.split()[1].partition(":")
                packages.append((name, architecture or "arm64", line.split("(")[1].split()[0]))
        show = ["apt-cache", "show", *(f"{name}:{architecture}={version}" for name, architecture, version in packages)]
        records = subprocess.run(show, env=environment, check=True, capture_output=True, text=True).stdout
    fields = [
        dict(row.split(": ", 1) for row in record.splitlines() if ": " in row) for record in records.split("\n\n") if record
    ]
    digests = {(field["Package"], field["Version"]): field["SHA256"] for field in fields}
    lines = [f"{name} {architecture} {version} {digests[name, version]}\n" for name, architecture, version in packages]
    LOCK.write_text(f"# Debian {SUITE}, by scripts/emulated_device.py lock\n" + "".join(sorted(lines)))
