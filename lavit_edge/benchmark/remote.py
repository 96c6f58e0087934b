"""What the runners over adb and ssh share: bring lavit_bench and a ``.pte`` to a device, run it there, fetch the reports.

In its folder on the device stay ``runner/``, the artifact and ``facts.json``, so that the next run pushes only what has changed;
all else lies in a folder of that one run and goes with it. The device needs a POSIX shell with the usual small programs, as
Android's toybox, busybox and Debian have them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import IO, Any

from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import read_entries
from lavit_edge.benchmark import facts, native
from lavit_edge.benchmark.devices import BenchmarkConfig, Progress, keeping
from lavit_edge.benchmark.report import Report, edited, parse_report
from lavit_edge.errors import UserError

# Written before and behind what a command writes, for there may be greetings of the shell's start files around it. Without the
# second, the connection ended before the command did.
MARK = "lavit-edge"
ANSWER = 60.0  # seconds in which a device must answer anything but a push and the benchmark
SPARE = 8 << 20  # bytes that stay free: a report of 20,000 runs has 0.2 MB
ARCHITECTURES: dict[str, native.Architecture]  # by `uname -m`
ARCHITECTURES = {"aarch64": "aarch64", "arm64": "aarch64", "x86_64": "x86_64", "amd64": "x86_64"}

# One line for each thing to know. A run that was cut off leaves its folder; it is swept up a day later.
LOOK = """umask 077
echo "machine=$(uname -m)"
for place in {places}; do
  mkdir -p "$place" 2>/dev/null && [ -O "$place" ] && [ -w "$place" ] || continue
  echo "place=$place"
  find "$place" -maxdepth 1 -name 'run-*' -mtime +0 -exec rm -rf {{}} + 2>/dev/null
  break
done
echo "qemu=$QEMU_CPU"
if command -v getprop >/dev/null; then
  echo "android=$(getprop ro.build.version.release)"
  echo "emulator=$(getprop ro.boot.qemu)"
  echo "form=$(getprop ro.build.characteristics)"
fi
true"""


@dataclass(frozen=True)
class Output:
    """Exit code of a command on the device, and what it wrote."""

    code: int
    text: str
    error: str


class Device(ABC):
    """
    Attributes:
        name: what messages call it.
        places: shell words, the folders to work in, best first.
    """

    name: str
    places: str

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """The command here that runs a script there."""

    @abstractmethod
    def push(self, file: Path, path: str) -> None:
        """Copies a file to a path there. Raises :class:`UserError` as :meth:`trouble` words it."""

    @abstractmethod
    def trouble(self, error: str) -> str:
        """One line on what cut a connection off, or refused it, by what the client wrote on stderr."""

    def run(self, script: str, stdin: IO[bytes] | None = None, timeout: float | None = ANSWER) -> Output:
        """Runs a shell script there. Raises :class:`UserError` if the connection does not last until its end."""
        begin, end = (f"{MARK}-{word}-{secrets.token_hex(8)}:" for word in ("begin", "exit"))
        whole = f"printf '\\n{begin}\\n'\n(\n{script}\n)\nprintf '\\n{end}%s\\n' $?"
        try:
            done = subprocess.run(
                self.command(whole), stdin=stdin or subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{self.name} does not answer (for {timeout:.0f} s)") from error
        text, stderr = (written.decode(errors="replace").replace("\r\n", "\n") for written in (done.stdout, done.stderr))
        found = re.search(f"\n{begin}\n(.*)\n{end}(\\d+)\n", text, re.DOTALL)
        if not found:
            raise UserError(self.trouble(stderr))
        return Output(int(found[2]), found[1], stderr)


def measure(device: Device, artifact: Path, settings: BenchmarkConfig, progress: Progress) -> list[Report]:
    """As :func:`lavit_edge.benchmark.devices.measure`, on a device that is there.

    Raises:
        UserError: not a ``.pte``, no runner for this device, no room, it went away, or what the runner there says.
    """
    check_artifact(artifact)
    progress("looking at the device", 0.0)
    there = look(device)
    place, run = there["place"], f"{there['place']}/run-{uuid.uuid4().hex[:8]}"
    emulator = f"qemu-user {there['qemu']}" if there["qemu"] else "Android emulator" if there.get("emulator") == "1" else None
    package = native.package(ARCHITECTURES[there["machine"]])
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "facts.json"
        known.write_text(json.dumps(host_facts(artifact, there)))
        files = {f"runner/{file.relative_to(package).as_posix()}": file for file in package.rglob("*") if file.is_file()}
        files |= {artifact.name: artifact, "facts.json": known}
        reports: list[Report] = []
        try:
            with keeping(reports):
                send(device, place, run, files, progress)
                for index, threads in enumerate(settings.threads):
                    progress(f"{threads} thread{'s' * (threads > 1)}", (index + 0.5) / (len(settings.threads) + 0.5))
                    reports.append(_benchmark(device, place, run, artifact, threads, settings, emulator))
            return reports
        finally:
            with contextlib.suppress(UserError):  # it may be the device that is gone; a report that could not be read stays
                device.run(
                    f"cd {quote(run)} && {{ kill $(cat pid); rm -f [0-9]* pid; cd .. && rmdir {quote(run)}; }} 2>/dev/null"
                )


def check_artifact(artifact: Path) -> None:
    """Raises :class:`UserError` unless it can go to a device."""
    if artifact.suffix != ".pte" or not artifact.is_file():
        raise UserError(f"{artifact} is not a .pte that exists; devices over adb and ssh run ExecuTorch's programs only")


def look(device: Device) -> dict[str, str]:
    """What :data:`LOOK` finds. Raises :class:`UserError` if the device cannot be used."""
    output = device.run(LOOK.format(places=device.places)).text
    there = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    if there.get("machine") not in ARCHITECTURES:
        kinds = ", ".join(sorted(set(ARCHITECTURES.values())))
        raise UserError(f"{device.name} has the architecture {there.get('machine')!r}; the runner is built for {kinds}")
    if "place" not in there:
        raise UserError(f"{device.name} has no folder to work in: none of {device.places} can be written (is it full?)")
    return there


def host_facts(artifact: Path, there: Mapping[str, str]) -> dict[str, Any]:
    """What this machine knows and the device cannot; null where the artifact is not ours."""
    top1 = None
    with contextlib.suppress(UserError):
        top1 = facts.artifact(artifact, read_payload(read_entries(artifact)))["top1_permille"]
    known: dict[str, Any] = {"runtime": facts.delegation(artifact), "artifact": {"top1_permille": top1}}
    if "android" in there:
        known["device"] = {"kind": "tablet" if "tablet" in there["form"] else "phone"}
    return known


def send(device: Device, place: str, run: str, files: Mapping[str, Path], progress: Progress) -> None:
    """Brings files to ``place``, by their names there, unless they are there already; whole or not at all.

    Where the device has no ``sha256sum``, it is sent everything.
    """
    listed = device.run(f"cd {quote(place)} && sha256sum {' '.join(map(quote, files))} 2>/dev/null").text
    there = {name: digest for digest, _, name in (line.partition("  ") for line in listed.splitlines())}
    digests = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    missing = {name: file for name, file in files.items() if there.get(name) != digests[name]}
    sizes = {name: file.stat().st_size for name, file in missing.items()}
    free = _free(device.run(f"df -Pk {quote(place)}").text)
    if free is not None and free < sum(sizes.values()) + SPARE:
        need = (sum(sizes.values()) + SPARE) / 1e6
        raise UserError(f"{device.name} has no space left: {free / 1e6:.0f} MB free in {place}, {need:.0f} MB needed")
    _must(device, f"umask 077; mkdir {quote(run)}", "cannot make a folder")
    moves = []
    for index, (name, file) in enumerate(missing.items()):
        progress(f"pushing {name}", 0.0)
        device.push(file, f"{run}/{index}")
        part, whole = f"{run}/{index}", quote(f"{place}/{name}")
        moves.append(f'[ $(wc -c < {part}) -eq {sizes[name]} ] && mkdir -p "$(dirname {whole})"')
        if os.access(file, os.X_OK):  # Android's shared storage, to which an app's artifact goes, takes no chmod
            moves.append(f"chmod 700 {part}")
        moves.append(f"mv -f {part} {whole}")
    if moves:
        _must(device, " &&\n".join(moves), "what was pushed did not arrive whole; try again")


def fetch(device: Device, path: str, artifact: Path, threads: int) -> Report:
    """Takes a report from the device, and once it was read away there.

    Raises:
        UserError: there is none, it cannot be read, or is not that of this artifact; then it stays, and the message says where.
    """
    _must(device, f"[ -f {quote(path)} ]", "there is no report")
    try:
        report = _read(device, path, artifact, threads)
    except UserError as error:
        raise UserError(f"{error}; it is still there, as {path}") from error
    device.run(f"rm -f {quote(path)}")
    return report


def _read(device: Device, path: str, artifact: Path, threads: int) -> Report:
    source = f"the report of {device.name}"
    report = parse_report(_must(device, f"cat {quote(path)}", "its report cannot be read").text, source)
    if edited(report):
        raise UserError(f"{source} is not what its harness wrote: it was changed or damaged on its way")
    if report["artifact"]["sha256"] != hashlib.sha256(artifact.read_bytes()).hexdigest():
        raise UserError(f"{source} is not of {artifact}: it names another SHA-256")
    if report["settings"]["threads"] != threads:
        raise UserError(f"{source} is of {report['settings']['threads']} threads, not of {threads}")
    return report


def _benchmark(
    device: Device, place: str, run: str, artifact: Path, threads: int, settings: BenchmarkConfig, emulator: str | None
) -> Report:
    paths = {"--artifact": f"{place}/{artifact.name}", "--out": f"{run}/report.json", "--facts": f"{place}/facts.json"}
    options = {**paths, "--threads": str(threads), "--seconds": str(settings.seconds)}
    options |= {"--emulator": emulator} if emulator else {}
    words = [quote(word) for option in options.items() for word in option] + ["--force"] * settings.force
    # by sh, since not every Android has a /bin/sh; the number of the process, so that it can be stopped from here
    script = f"echo $$ > {run}/pid; exec sh {place}/runner/run {' '.join(words)}"
    done = device.run(f"exec sh -c {quote(script)}", timeout=None)
    said = (done.error.strip() or done.text.strip()).splitlines()
    last = said[-1].removeprefix("error: ") if said else f"exit code {done.code}, without a word"
    if done.code not in (0, 1):
        with contextlib.suppress(UserError):
            device.run(f"rm -f {run}/report.json")  # whatever it is, it is no report
    if done.code in (126, 127):
        raise UserError(f"{device.name} does not run programs in {place} ({last})")
    if done.code > 128:
        why = "no memory left?" if done.code == 128 + 9 else last
        raise UserError(f"lavit_bench was ended on {device.name} by signal {done.code - 128} ({why})")
    if done.code not in (0, 1):
        raise UserError(f"{device.name}: {last}")
    device.run(f"rm -f {run}/pid")
    return fetch(device, f"{run}/report.json", artifact, threads)


def _must(device: Device, script: str, otherwise: str) -> Output:
    output = device.run(script)
    if output.code:
        said = output.error.strip().splitlines()
        raise UserError(f"{device.name}: {otherwise} ({said[-1] if said else f'exit code {output.code}'})")
    return output


def _free(listed: str) -> int | None:
    """Bytes free by ``df -Pk``; None where its output is of another kind."""
    fields = (listed.strip().splitlines() or [""])[-1].split()
    return int(fields[3]) * 1024 if len(fields) >= 6 and fields[3].isdigit() else None
