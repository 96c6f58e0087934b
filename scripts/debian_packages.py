"""Packages of a newer Debian than the machine's, for tests: downloaded by apt from the machine's own source, and not installed.

A lock file names each package with its version and SHA-256, so that the tools of a test change with the repository alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

SUITE = "trixie"


class Unavailable(Exception):
    """This machine cannot have the packages, or what they are for; the text says why."""


def cache(name: str) -> Path:
    """The folder outside the checkout in which unpacked packages stay."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name


def download(lock: Path, folder: Path, architecture: str) -> list[Path]:
    """The packages of a lock file, verified by apt's signatures and by the SHA-256 of each.

    Raises:
        Unavailable: apt cannot reach Debian, or Debian does not have those packages any more.
    """
    wanted = [line.split() for line in lock.read_text().splitlines() if not line.startswith("#")]
    names = {f"{name}:{kind}={version}": digest for name, kind, version, digest in wanted}
    try:
        return fetch(names, folder, architecture)
    except Unavailable as error:
        raise Unavailable(f"{error}; {lock.stem}.py lock follows Debian") from error


def unpacked(lock: Path, folder: Path, architecture: str, unpack: Callable[[list[Path], Path], None]) -> Path:
    """What ``unpack(packages, new)`` makes of a lock file's packages, once: ``new``, kept in ``folder`` under the lock's hash.

    Raises as :func:`download`.
    """
    done = folder / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # two test processes want it at once
        if not done.exists():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                whole = Path(temporary, "whole")
                unpack(download(lock, Path(temporary), architecture), whole)
                whole.rename(done)
    return done


def fetch(wanted: Mapping[str, str], folder: Path, architecture: str, suite: str = SUITE) -> list[Path]:
    """Packages, named as ``name:architecture=version``, by the SHA-256 that they must have. Raises as :func:`download`."""
    debs = folder / "debs"
    debs.mkdir()
    with _apt(folder, architecture, suite) as environment:
        got = subprocess.run(["apt-get", "-q", "download", *wanted], cwd=debs, env=environment, capture_output=True, text=True)
    if got.returncode:
        raise Unavailable(f"Debian {suite} has other packages now ({(got.stderr.strip().splitlines() or ['?'])[0]})")
    hashes = {}
    for deb in debs.iterdir():
        with deb.open("rb") as stream:
            hashes[hashlib.file_digest(stream, "sha256").hexdigest()] = deb
    if set(hashes) != set(wanted.values()):
        raise Unavailable("the packages that apt downloaded are not those that are pinned")
    return list(hashes.values())


def empty_root(root: Path) -> None:
    """The folders that no package brings because every system has them."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("data", "dev", "home", "proc", "root", "run", "sys", "tmp"):
        (root / name).mkdir()


def write_lock(lock: Path, wanted: Sequence[str], architecture: str, *, only: bool = False) -> None:
    """Resolves ``wanted`` against today's Debian and writes names, versions and hashes; ``only`` those, without their needs."""
    with tempfile.TemporaryDirectory() as temporary, _apt(Path(temporary), architecture) as environment:
        resolve = ["apt-get", "-s", "--no-install-recommends", "install", *wanted]
        told = subprocess.run(resolve, env=environment, check=True, capture_output=True, text=True).stdout
        packages = []
        for line in told.splitlines():
            if line.startswith("Inst "):
                name, _, kind = line.split()[1].partition(":")
                if not only or name in {name.partition(":")[0] for name in wanted}:
                    packages.append((name, kind or architecture, line.split("(")[1].split()[0]))
        show = ["apt-cache", "show", *(f"{name}:{kind}={version}" for name, kind, version in packages)]
        records = subprocess.run(show, env=environment, check=True, capture_output=True, text=True).stdout
    fields = [
        dict(row.split(": ", 1) for row in record.splitlines() if ": " in row) for record in records.split("\n\n") if record
    ]
    digests = {(field["Package"], field["Version"]): field["SHA256"] for field in fields}
    lines = [f"{name} {kind} {version} {digests[name, version]}\n" for name, kind, version in packages]
    lock.write_text(f"# Debian {SUITE}, by scripts/{lock.stem}.py lock\n" + "".join(sorted(lines)))


@contextlib.contextmanager
def _apt(folder: Path, architecture: str, suite: str = SUITE) -> Iterator[dict[str, str]]:
    """An environment in which apt is a machine of that suite with nothing installed, on this machine's own source."""
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
    (home / "source.list").write_text(f"deb [signed-by={keyring}] {found[0]} {suite} main\n")
    settings = {
        "Dir::State": home / "state",
        "Dir::State::status": home / "status",
        "Dir::Cache": home / "cache",
        "Dir::Etc::sourcelist": home / "source.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    kinds = " ".join(f'"{kind}";' for kind in dict.fromkeys((architecture, "amd64")))  # amd64 is the machine's own
    text = "".join(f'{name} "{value}";\n' for name, value in settings.items())
    (home / "apt.conf").write_text(text + f"APT::Architectures {{ {kinds} }};\n")
    environment = {**os.environ, "APT_CONFIG": str(home / "apt.conf"), "LC_ALL": "C"}
    updated = subprocess.run(["apt-get", "-q", "update"], env=environment, capture_output=True, text=True)
    if updated.returncode:
        raise Unavailable(f"apt cannot read Debian {suite} ({(updated.stderr.strip().splitlines() or ['?'])[0]})")
    yield environment
