"""Benchmarks on Android over adb: ``adb`` (the one device), ``adb:SERIAL``, or ``adb:all`` (all at once).

The ``adb`` program and not a library: adbutils would bring a second adb beside the user's own, whose servers end each other when
their versions differ, and ssh needs the code around a program all the same.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lavit_edge.benchmark import remote
from lavit_edge.benchmark.devices import BenchmarkConfig, Progress, Several
from lavit_edge.benchmark.report import Report
from lavit_edge.errors import UserError

PLACE = "/data/local/tmp/lavit-edge"  # where Android lets the shell run programs
SETTLES = 10.0  # seconds that a device may need until a server of adb that has just started knows it: 4 on a busy machine
STATES = {
    "unauthorized": "does not trust this computer: unlock it and accept the prompt on the device (Allow USB debugging)",
    "authorizing": "is asking whether it may trust this computer: accept the prompt on the device",
    "offline": "is offline: plug it in again, or run adb reconnect offline",
    "no permissions": "cannot be opened by this user: install Debian's android-sdk-platform-tools-common and plug it in again",
}


class AdbDevice(remote.Device):
    """A device that adb knows by its serial number."""

    places = PLACE

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self.name = f"device {serial}"

    def command(self, script: str) -> list[str]:
        return [program(), "-s", self.serial, "shell", script]

    def push(self, file: Path, path: str) -> None:
        done = subprocess.run(
            [program(), "-s", self.serial, "push", file, path], capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            raise UserError(self.trouble(done.stderr + done.stdout))

    def trouble(self, error: str) -> str:
        for word in ("unauthorized", "offline"):
            if f"device {word}" in error:
                return f"{self.name} {STATES[word]}"
        last = (error.strip().splitlines() or ["without a word"])[-1]
        if "No space left" in error:
            return f"{self.name} has no space left ({last})"
        if any(word in error for word in ("not found", "no devices", "closed", "reset", "Broken pipe")) or not error.strip():
            return f"{self.name} went away ({last}): is it still plugged in and switched on?"
        return f"{self.name}: {last}"


def measure(artifact: Path, settings: BenchmarkConfig, address: str | None, progress: Progress) -> list[Report]:
    """As :func:`lavit_edge.benchmark.devices.measure`; ``address`` is a serial number, ``all``, or None for the only device.

    Raises:
        UserError: no adb, no such device or one that is not ready, or as :func:`lavit_edge.benchmark.remote.measure`.
        Several: of all devices, some failed.
    """
    remote.check_artifact(artifact)
    devices, refused = seen(address)
    if not devices or (refused and address != "all"):
        raise UserError("; ".join(refused))
    if len(devices) == 1 and not refused:
        return remote.measure(devices[0], artifact, settings, progress)
    shares = dict.fromkeys((device.serial for device in devices), 0.0)
    lock = threading.Lock()

    def one(device: AdbDevice) -> list[Report] | UserError | OSError:
        def tell(what: str, share: float) -> None:
            with lock:
                shares[device.serial] = share
                progress(f"{device.serial}: {what}", sum(shares.values()) / len(shares))

        try:
            return remote.measure(device, artifact, settings, tell)
        except (UserError, OSError) as error:
            return error

    with ThreadPoolExecutor(len(devices)) as pool:
        outcomes = list(pool.map(one, devices))
    reports = [report for each in outcomes for report in (each if isinstance(each, list) else getattr(each, "reports", ()))]
    if failures := [*refused, *(str(outcome) for outcome in outcomes if not isinstance(outcome, list))]:
        raise Several("; ".join(failures), reports)
    return reports


def choose(address: str | None) -> list[AdbDevice]:
    """The devices that an address means. Raises :class:`UserError` unless all of them are ready."""
    ready, refused = seen(address)
    if refused:
        raise UserError("; ".join(refused))
    return ready


def seen(address: str | None) -> tuple[list[AdbDevice], list[str]]:
    """The devices that an address means: those that are ready, and a line on each that is not.

    Raises:
        UserError: there are none, or the address is of none of them, or of more than one.
    """
    states = devices()
    end = time.monotonic() + SETTLES
    while any(state in ("offline", "connecting", "authorizing") for state in states.values()) and time.monotonic() < end:
        time.sleep(0.1)
        states = devices()
    if not states:
        raise UserError("adb sees no device: plug one in and switch on USB debugging in its developer options")
    if address is None and len(states) > 1:
        raise UserError(
            f"adb sees {len(states)} devices: choose one of {', '.join(f'adb:{name}' for name in states)}, or adb:all"
        )
    if address not in (None, "all") and address not in states:
        raise UserError(f"adb sees no device {address!r}; it sees {', '.join(states)}")
    chosen = states if address in (None, "all") else {address: states[address]}
    refused = []
    for serial, state in chosen.items():
        if state != "device":
            known = (text for word, text in STATES.items() if state.startswith(word))
            refused.append(f"device {serial} {next(known, f'is in the state {state!r}, not started')}")
    return [AdbDevice(serial) for serial, state in chosen.items() if state == "device"], refused


def devices() -> dict[str, str]:
    """Serial number and state of each device that adb sees."""
    try:
        done = subprocess.run([program(), "devices"], capture_output=True, text=True, errors="replace", timeout=remote.ANSWER)
    except subprocess.TimeoutExpired as error:
        raise UserError("adb does not answer; adb kill-server may help") from error
    if done.returncode:
        raise UserError(f"adb: {(done.stderr.strip().splitlines() or ['it failed without a word'])[-1]}")
    rows = (line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    return {serial: state.strip() for serial, state in rows}


def program() -> str:
    found = shutil.which("adb")
    if not found:
        raise UserError("adb is not installed: Debian's package adb, or Android's SDK Platform-Tools on the PATH")
    return found
