"""Benchmarks on a board or computer over ssh: ``ssh:USER@HOST[:PORT]``, by the system's OpenSSH client and its configuration."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from lavit_edge.benchmark import remote
from lavit_edge.benchmark.devices import BenchmarkConfig, Progress
from lavit_edge.benchmark.report import Report
from lavit_edge.errors import UserError

ADDRESS = re.compile(r"(?P<host>(?:[^@\s]+@)?(?:\[[0-9A-Fa-f:.%\w]+\]|[^@:\s\[\]-][^@:\s\[\]]*))(?::(?P<port>\d{1,5}))?")
OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=3", "LogLevel=ERROR")
CAUSES = {  # in what ssh says -> what to say of the host {0}
    "Could not resolve hostname": "there is no host {0}",
    "Connection refused": "{0} refuses connections: is its ssh server running, and on this port?",
    "timed out": "{0} does not answer",
    "No route to host": "{0} cannot be reached",
    "Network is unreachable": "{0} cannot be reached",
    "IDENTIFICATION HAS CHANGED": "{0} shows another host key than before; if that is right, ssh-keygen -R forgets the old one",
    "Host key verification failed": "the host key of {0} is not known: connect to it once by hand with ssh",
    "Permission denied (": "{0} accepts no key of yours: ssh-copy-id {0} brings it one",
    "Too many authentication failures": "{0} accepts no key of yours: ssh-copy-id {0} brings it one",
    "No space left": "{0} has no space left",
}


class SshDevice(remote.Device):
    """A host on the other side of one connection, which the commands share."""

    places = '"$HOME/.cache/lavit-edge" "/tmp/lavit-edge-$(id -u)"'

    def __init__(self, host: str, port: str | None, folder: Path) -> None:
        self.name = host
        self.log = folder / "log"
        self.socket = folder / "socket"
        self.ssh = [_program(), *(word for option in OPTIONS for word in ("-o", option)), "-S", str(self.socket)]
        self.ssh += ["-p", port] if port else []

    def command(self, script: str) -> list[str]:
        return [*self.ssh, "-o", "ControlMaster=no", "--", self._host, f"exec sh -c {quote(script)}"]  # its own shell may be any

    def push(self, file: Path, path: str) -> None:
        with file.open("rb") as stream:  # and not scp, which small systems lack
            done = self.run(f"cat > {quote(path)}", stdin=stream, timeout=None)
        if done.code:
            raise UserError(self.trouble(done.error))

    def trouble(self, error: str) -> str:
        last = (error.strip().splitlines() or ["without a word"])[-1]
        for words, meaning in CAUSES.items():
            if words in error:
                return f"{meaning.format(self.name)} ({last})"
        return f"the connection to {self.name} was lost ({last})"

    @property
    def _host(self) -> str:
        user, at, host = self.name.rpartition("@")
        return f"{user}{at}{host.strip('[]')}"

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """The connection, made and ended. Our own process and not ControlPersist's, which would hold our pipes and outlive us."""
        with self.log.open("wb") as log:
            master = subprocess.Popen(
                [*self.ssh, "-M", "-N", "--", self._host], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )
        try:
            while not self.socket.exists():
                if master.poll() is not None:
                    raise UserError(self.trouble(self.log.read_text(errors="replace")))
                time.sleep(0.02)
            yield
        finally:
            master.terminate()
            master.wait()


def measure(artifact: Path, settings: BenchmarkConfig, address: str | None, progress: Progress) -> list[Report]:
    """As :func:`lavit_edge.benchmark.devices.measure`; ``address`` is ``USER@HOST``, ``HOST``, or either with ``:PORT``.

    Raises:
        UserError: no ssh, no such address, the host refuses, or as :func:`lavit_edge.benchmark.remote.measure`.
    """
    remote.check_artifact(artifact)
    found = ADDRESS.fullmatch(address or "")
    if not found:
        raise UserError(f"ssh needs an address, ssh:USER@HOST or ssh:USER@HOST:PORT, not {address!r}")
    with tempfile.TemporaryDirectory(prefix="lavit-edge-") as folder:
        device = SshDevice(found["host"], found["port"], Path(folder))
        progress(f"connecting to {device.name}", 0.0)
        with device.connected():
            return remote.measure(device, artifact, settings, progress)


def _program() -> str:
    found = shutil.which("ssh")
    if not found:
        raise UserError("ssh is not installed: Debian's package openssh-client")
    return found
