"""Benchmarks an artifact on an iPhone or iPad: a report that the app has exported is taken in, or Xcode's ``devicectl`` gets one.

Never run on a Mac: the calls of ``devicectl`` are those of its help, tested with a program of its name that does what they say.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from lavit_edge.artifact.seal import content_sha256
from lavit_edge.benchmark.devices import BenchmarkConfig, Progress, keeping
from lavit_edge.benchmark.report import Report, edited, read_report
from lavit_edge.errors import UserError

APP = "org.lavitedge.app"
SPARE_SECONDS = 600.0  # for copying, loading (Core ML compiles), self-test and warm-up
BY_HAND = "run the app's benchmark screen on the device, share its JSON, and give that: --device ios:REPORT.json"


def measure(artifact: Path, settings: BenchmarkConfig, address: str | None, progress: Progress) -> list[Report]:
    """As :func:`lavit_edge.benchmark.devices.measure`.

    ``address`` is a report that the app's benchmark screen has shared, ``*.json``: it was taken with the settings that it names,
    and ``settings`` has no say. Or it is a device as ``xcrun devicectl list devices`` names it: the app there, which must be
    installed, gets the artifact and runs it.

    Raises:
        UserError: the report is not sound, was edited, or is not on this artifact; no Mac with Xcode; ``devicectl`` fails.
    """
    if artifact.suffix not in (".mlpackage", ".pte") or not artifact.exists():
        raise UserError(f"{artifact} is not an artifact for iOS: an .mlpackage or .pte that exists")
    if address is not None and address.endswith(".json"):
        return [take(Path(address), artifact)]
    xcrun = shutil.which("xcrun")
    if xcrun is None:
        raise UserError(f"an iPhone is measured from a Mac with Xcode, which this is not; {BY_HAND}")
    if address is None:
        raise UserError(f"which device? --device ios:NAME, as xcrun devicectl list devices names it; or {BY_HAND}")
    # Core ML chooses its threads itself
    counts: tuple[int | None, ...] = (None,) if artifact.suffix == ".mlpackage" else settings.threads
    reports: list[Report] = []
    for index, threads in enumerate(counts):
        progress(f"{address}: {threads or 'its own'} threads", index / len(counts))
        with keeping(reports):
            reports.append(_run(xcrun, address, artifact, threads, settings))
    return reports


def take(file: Path, artifact: Path) -> Report:
    """A report of the app's on this artifact. Raises as :func:`measure`."""
    report = read_report(file)
    if edited(report):
        raise UserError(f"{file} was edited after it was written: its digest differs; share it from the app again")
    if report["harness"]["name"] != "ios":
        raise UserError(f"{file} is from the harness {report['harness']['name']!r}, not from the iOS app")
    ours, theirs = content_sha256(artifact), report["artifact"]["content_sha256"]
    if theirs != ours:
        raise UserError(f"{file} is on another artifact ({str(theirs)[:16]}...), not on {artifact} ({ours[:16]}...)")
    return report


def _run(xcrun: str, device: str, artifact: Path, threads: int | None, settings: BenchmarkConfig) -> Report:
    """One report by the app on a device: artifact there, benchmark, report back."""
    folder = f"Documents/benchmark-{secrets.token_hex(4)}"  # a new one, so that no old report is taken for this one
    there, report = f"{folder}/{artifact.name}", f"{folder}/report.json"
    container = ["--domain-type", "appDataContainer", "--domain-identifier", APP]
    arguments = ["--benchmark", there, "--report", report, "--seconds", str(settings.seconds)]
    arguments += [] if threads is None else ["--threads", str(threads)]
    arguments += ["--force"] * settings.force
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary) / "report.json"
        source = ["--source", str(artifact), "--destination", there]
        _devicectl(xcrun, device, ["device", "copy", "to"], [*container, *source])
        launch = ["--console", "--terminate-existing", APP, *arguments]  # --console waits for the app to end
        _devicectl(xcrun, device, ["device", "process", "launch"], launch, SPARE_SECONDS + 2 * settings.seconds)
        back = ["--source", report, "--destination", str(here)]
        _devicectl(xcrun, device, ["device", "copy", "from"], [*container, *back])
        if not here.is_file():
            raise UserError(f"the app on {device} wrote no report; is {APP} of this version installed there?")
        return take(here, artifact)


def _devicectl(xcrun: str, device: str, what: list[str], arguments: list[str], seconds: float = SPARE_SECONDS) -> None:
    command = [xcrun, "devicectl", *what, "--device", device, *arguments]
    name = f"xcrun devicectl {' '.join(what)}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{name} did not end within {seconds:g} s; is {device} unlocked and connected?") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{name} failed: {said[0]}; is {device} connected, and {APP} installed there?")
