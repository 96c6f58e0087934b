"""Benchmarks in the Android app, over adb: ``adb-app``, or ``adb-app:SERIAL``. What the app measures is what a user of it gets.

The app's part: ``BenchmarkActivity`` takes the extras ``--es artifact NAME``, ``--ei threads N``, ``--ei seconds S`` and
``--ez force true``, reads NAME in its external files, writes the report beside it under any name and renames it to
``report.json``. If it cannot make a report, it writes ``{"error": "one line"}`` there instead.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from shlex import quote

from lavit_edge.benchmark import adb, remote
from lavit_edge.benchmark.devices import BenchmarkConfig, Progress, keeping
from lavit_edge.benchmark.report import Report
from lavit_edge.errors import UserError
from lavit_edge.files import parse_json

PACKAGE = "org.lavitedge.app"
PROCESS = f"{PACKAGE}:benchmark"  # BenchmarkActivity's, where the model was not loaded before
FILES = f"/sdcard/Android/data/{PACKAGE}/files"
REPORT = f"{FILES}/report.json"
EVERY = 1.0  # seconds between looks for the report


def measure(artifact: Path, settings: BenchmarkConfig, address: str | None, progress: Progress) -> list[Report]:
    """As :func:`lavit_edge.benchmark.devices.measure`; ``address`` is a serial number, or None for the only device.

    Raises:
        UserError: as :func:`lavit_edge.benchmark.adb.measure`; the app is not installed, does not start, ends without a report,
            or says what is wrong.
    """
    remote.check_artifact(artifact)
    if address == "all":
        raise UserError("the app is measured on one device at a time: adb-app:SERIAL")
    (device,) = adb.choose(address)
    if device.run(f"pm path {PACKAGE}").code:
        raise UserError(f"{device.name} does not have the app: build {PACKAGE} (apps/android) and install it with adb install")
    progress("looking at the device", 0.0)
    there = {"place": FILES, "run": f"{FILES}/run"}
    try:
        device.run(f"mkdir -p {FILES}; rm -rf {there['run']} {REPORT}")
        remote.send(device, there["place"], there["run"], {artifact.name: artifact}, progress)
        reports: list[Report] = []
        with keeping(reports):
            for index, threads in enumerate(settings.threads):
                progress(f"{threads} thread{'s' * (threads > 1)}", (index + 0.5) / (len(settings.threads) + 0.5))
                _start(device, artifact, threads, settings)
                _wait(device)
                reports.append(remote.fetch(device, REPORT, artifact, threads))
        return reports
    finally:  # fetch has deleted the report, or it is to stay
        with contextlib.suppress(UserError):
            device.run(f"am force-stop {PACKAGE}; rm -rf {there['run']}")


def _start(device: adb.AdbDevice, artifact: Path, threads: int, settings: BenchmarkConfig) -> None:
    """Starts the activity in a new process (-S ends an old one), so that loading is cold."""
    extras = f"--es artifact {quote(artifact.name)} --ei threads {threads} --ei seconds {math.ceil(settings.seconds)}"
    extras += " --ez force true" * settings.force
    started = device.run(f"am start -S -W -n {PACKAGE}/.BenchmarkActivity {extras}")
    said = f"{started.text}\n{started.error}".splitlines()
    problem = next((line for line in said if line.startswith(("Error", "Exception", "java."))), None)
    if started.code or problem:  # am start ends with 0 whatever happens
        raise UserError(f"{device.name} does not start the app ({problem or f'exit code {started.code}'})")


def _wait(device: adb.AdbDevice) -> None:
    """Until the report is there. How long that takes, only the device knows; that the app still runs is what is watched."""
    while True:
        running = device.run(f"pidof {PROCESS}").code == 0  # asked first: the report may come between the two
        if device.run(f"[ -f {REPORT} ]").code == 0:
            break
        if not running:
            raise UserError(f"the app ended on {device.name} without a report; adb logcat says why")
        time.sleep(EVERY)
    start = device.run(f"head -c 2000 {REPORT}").text
    if start.lstrip().startswith('{"error"'):
        raise UserError(f"{device.name}: the app says: {parse_json(start, 'its answer').get('error')}")
