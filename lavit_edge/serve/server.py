"""The server of the web app: what there is to be had, by path, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lavit_edge import __version__
from lavit_edge.artifact.payload import Payload, read_payload
from lavit_edge.artifact.runners import LARGEST, read_entries
from lavit_edge.artifact.seal import check_seal
from lavit_edge.benchmark import onnxruntime_web
from lavit_edge.benchmark.browser import ISOLATION
from lavit_edge.errors import UserError

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}
PAGE = ("index.html", "app.css", "app.js", "worker.js", "sw.js", "manifest.webmanifest", "icon.svg")
HEADERS = (
    *ISOLATION,  # for threads
    ("Cross-Origin-Resource-Policy", "same-origin"),
    # the page asks nobody else, and what a model says is text; the runtime's WebAssembly is compiled, which is a kind of eval
    ("Content-Security-Policy", "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' data: blob:"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),  # kept, and asked for again by ETag: another model is seen at once
)
WAIT = 60  # seconds for a client that says nothing


@dataclass(frozen=True)
class File:
    """What the server gives under one path."""

    kind: str
    content: bytes
    tag: str


def find_model(path: Path) -> Path:
    """The ``.onnx`` that a user means. Raises :class:`UserError` where there is none, or several."""
    if path.suffix == ".onnx" and path.is_file():
        return path
    if path.is_file():
        raise UserError(f"{path}: the page runs an .onnx only; export writes one with --target onnx")
    if not path.is_dir():
        raise UserError(f"{path} does not exist; python -m lavit_edge.export writes a bundle")
    found = [path / "model.onnx"] if (path / "model.onnx").is_file() else sorted(path.glob("*/model.onnx"))
    if len(found) != 1:
        names = ", ".join(str(file.parent) for file in found)
        raise UserError(f"{path} has several bundles, name one: {names}" if found else f"{path} holds no model.onnx")
    return found[0]


def check_model(path: Path) -> Payload:
    """What an artifact carries. Raises :class:`UserError` unless it is whole and can test itself."""
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} is over {LARGEST >> 30} GB, more than any artifact of ours")
    check_seal(path)
    return read_payload(read_entries(path))


def site(model: Path) -> dict[str, File]:
    """All that there is to be had, by path: nothing else can be asked for.

    Raises:
        UserError: ONNX Runtime Web cannot be fetched.
    """
    web, runtime = onnxruntime_web.web_folder(), onnxruntime_web.fetch()
    found = {f"/{name}": web / name for name in PAGE}
    found |= {f"/lib/{file.name}": file for file in sorted((web / "lib").glob("*.js")) if file.name != "headless.js"}
    found |= {f"/runtime/{file.name}": file for file in sorted(runtime.iterdir())}
    found["/model.onnx"] = model
    files = {path: file_of(file.suffix, file.read_bytes()) for path, file in found.items()}
    files["/"] = files.pop("/index.html")
    state = hashlib.sha256("\n".join(f"{path} {file.tag}" for path, file in sorted(files.items())).encode()).hexdigest()[:16]
    about = {"version": __version__, "file": model.name, "site": state}  # another state is another cache of the service worker
    files["/about.json"] = file_of(".json", json.dumps(about).encode())
    names = [path.removeprefix("/") or "./" for path in files]
    return files | {"/files.json": file_of(".json", json.dumps(names).encode())}  # what the service worker keeps


def file_of(suffix: str, content: bytes) -> File:
    return File(KINDS[suffix], content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class Server(ThreadingHTTPServer):
    """Serves ``files`` on one address, with TLS if it has a context."""

    daemon_threads = True  # a browser leaves connections open

    def __init__(self, address: tuple[str, int], files: Mapping[str, File], context: ssl.SSLContext | None) -> None:
        self.files, self.context = files, context
        super().__init__(address, Handler)

    def get_request(self) -> tuple[Any, Any]:
        connection, client = super().get_request()
        if self.context:  # the handshake is left to the connection's own thread: a client that stalls holds up nobody
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, client

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away, or does not want the certificate
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lavit-edge", ""
    timeout = WAIT
    server: Server

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, with_content: bool) -> None:
        file = self.server.files.get(urlsplit(self.path).path)
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        known = self.headers.get("If-None-Match") == file.tag
        self.send_response(HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK)
        for name, value in (*HEADERS, ("ETag", file.tag)):
            self.send_header(name, value)
        if not known:
            self.send_header("Content-Type", file.kind)
            self.send_header("Content-Length", str(len(file.content)))
        self.end_headers()
        if with_content and not known:
            self.wfile.write(file.content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(address: str, port: int, files: Mapping[str, File], pem: Path | None = None) -> Iterator[int]:
    """Serves until the context ends; gives the port. Raises :class:`UserError` if that is taken."""
    context = None
    if pem:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
    try:
        server = Server((address, port), files, context)
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise UserError(f"port {port} of {address} {why}; choose another with --port") from error
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
