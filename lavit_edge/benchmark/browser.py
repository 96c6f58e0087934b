"""Benchmarks an ``.onnx`` in a browser: ONNX Runtime Web in headless Chromium, on this machine.

A page of our own (``apps/web/lib/headless.js``) does all of it and writes the report. It comes from a server on 127.0.0.1, with
the headers that WebAssembly needs for threads, and posts what it does, and at last the report, back to that server.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lavit_edge import __version__
from lavit_edge.artifact.runners import LARGEST
from lavit_edge.benchmark import facts, onnxruntime_web
from lavit_edge.benchmark.devices import BenchmarkConfig, Progress, keeping
from lavit_edge.benchmark.report import Report, parse_report
from lavit_edge.errors import UserError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = 180.0  # seconds without a word from the page; loading and the first inference happen within one such time
LONGEST_POST = 16 << 20  # bytes; a report of 20,000 runs has 0.2 MB
ISOLATION = (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp"))  # for threads
KINDS = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>lavit-edge benchmark</title>
<link rel="icon" href="data:,">
<script>
  // also for a module that cannot be loaded or parsed, whose event does not bubble
  addEventListener("error", (event) => {
    const what = event.message || `cannot load ${event.target.src || event.target}`;
    fetch("error", { method: "POST", body: JSON.stringify(what) });
  }, true);
</script>
<script type="module" src="lib/headless.js"></script>
"""
FLAGS = (
    "--headless=new",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # containers have 64 MB there
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
)


def measure(artifact: Path, settings: BenchmarkConfig, address: str | None, progress: Progress) -> list[Report]:
    """As :func:`lavit_edge.benchmark.devices.measure`; ``address`` has no meaning here.

    Raises:
        UserError: not an ``.onnx`` of ours, there is no Chromium, or no npm to bring the runtime; Chromium or the page failed, or
            the page was silent for too long.
    """
    if address:
        raise UserError(f"--device browser takes no address ({address!r})")
    if artifact.suffix != ".onnx":  # an .ort is the same model, with its payload where no small reader finds it
        raise UserError(f"{artifact}: the browser runs an .onnx only")
    if not artifact.is_file() or artifact.stat().st_size > LARGEST:
        raise UserError(f"{artifact} does not exist, is no file, or is over {LARGEST >> 30} GB")
    chromium = find_chromium()
    progress("fetching ONNX Runtime Web", 0.0)
    runtime = onnxruntime_web.fetch()
    reports: list[Report] = []
    for index, threads in enumerate(settings.threads):

        def told(what: str, share: float, done: int = index) -> None:
            progress(what, (done + share) / len(settings.threads))

        job = {
            "artifact": "artifact",
            "file": artifact.name,
            "runtime": "runtime/",
            "version": __version__,
            "threads": threads,
            "seconds": settings.seconds,
            "force": settings.force,
            "device": facts.device(),
            "file_cache": "warm",  # this process has just read it
        }
        site = Site(job, artifact.read_bytes(), runtime)
        with keeping(reports):
            reports.append(_run(chromium, site, artifact, told))
    return reports


def find_chromium() -> str:
    """Path of the browser. Raises :class:`UserError` if there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise UserError(f"no browser on the PATH ({', '.join(NAMES)} were looked for); on Debian: apt-get install chromium")


@dataclass
class Site:
    """What the server gives to the page, and what the page says: pairs of a name and a JSON text."""

    job: dict[str, Any]
    artifact: bytes
    runtime: Path
    said: queue.Queue[tuple[str, str]] = field(default_factory=queue.Queue)

    def get(self, path: str) -> tuple[str, bytes] | None:
        """Media type and content; None where there is nothing."""
        made = {
            "": lambda: ("text/html", PAGE.encode()),
            "job.json": lambda: ("application/json", json.dumps(self.job).encode()),
            "condition.json": lambda: ("application/json", json.dumps(facts.condition()).encode()),
            "artifact": lambda: ("application/octet-stream", self.artifact),
        }
        if path in made:
            return made[path]()
        folder, _, name = path.partition("/")
        folders = {"lib": onnxruntime_web.web_folder() / "lib", "runtime": self.runtime}
        if folder not in folders or name not in os.listdir(folders[folder]) or not (folders[folder] / name).is_file():
            return None
        return KINDS.get(Path(name).suffix, "application/octet-stream"), (folders[folder] / name).read_bytes()


@contextlib.contextmanager
def serve(site: Site) -> Iterator[str]:
    """Serves a site on a free port of 127.0.0.1; gives its URL, which nobody else on this machine can guess."""
    secret = secrets.token_urlsafe(16)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = site.get(self.path.removeprefix(f"/{secret}/")) if self.path.startswith(f"/{secret}/") else None
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self.send_response(HTTPStatus.OK)
            for name, value in (
                ("Content-Type", found[0]),
                ("Content-Length", str(len(found[1]))),
                ("Cache-Control", "no-store"),
                *ISOLATION,
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found[1])

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if not self.path.startswith(f"/{secret}/") or not 0 < length <= LONGEST_POST:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            site.said.put((self.path.removeprefix(f"/{secret}/"), self.rfile.read(length).decode("utf-8", "replace")))
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True  # a browser that is killed leaves connections open
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{secret}/"
        finally:
            server.shutdown()


def _run(chromium: str, site: Site, artifact: Path, progress: Progress) -> Report:
    """One report by one browser, started and ended here."""
    with tempfile.TemporaryDirectory(prefix="lavit-edge-browser-", ignore_cleanup_errors=True) as folder, serve(site) as url:
        log = Path(folder) / "log"
        command = [chromium, *FLAGS, *_no_sandbox(), f"--user-data-dir={folder}/profile", url]
        environment = {**os.environ, "HOME": folder}  # it leaves a key store and settings there
        with log.open("wb") as sink:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, start_new_session=True
            )
        try:
            text = _listen(process, site.said, artifact, log, progress)
        finally:
            _stop(process)
    return parse_report(text, f"the report on {artifact}")


def _listen(
    process: subprocess.Popen[bytes], said: queue.Queue[tuple[str, str]], artifact: Path, log: Path, progress: Progress
) -> str:
    """The text of the report, once the page has posted it."""
    heard = time.monotonic()
    while True:
        try:
            name, text = said.get(timeout=0.2)
        except queue.Empty:
            if process.poll() is not None:
                lines = log.read_text("utf-8", "replace").strip().splitlines() or ["without a word"]
                last = [line for line in lines if ":FATAL:" in line] or lines  # it complains of a missing D-Bus all the time
                raise UserError(f"Chromium ended with code {process.returncode}: {last[-1]}") from None
            if time.monotonic() - heard > QUIET:
                raise UserError(f"out of time: the page in Chromium was silent for {QUIET:g} s; ended") from None
            continue
        heard = time.monotonic()
        if name == "report":
            return text
        value = json.loads(text)
        if name == "progress":
            progress(str(value["what"]), float(value["share"]))
        elif name == "refused":
            raise UserError(f"{artifact}: {value}")
        else:
            raise UserError(f"the page failed in Chromium: {value}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a browser and the processes that it started, which share its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        for _ in range(50):  # the others end shortly after the first; nothing of theirs may write when the folder is removed
            os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.1)
    process.wait()


def _no_sandbox() -> list[str]:
    """Chromium refuses to start as root with its sandbox; the page is our own."""
    return ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
