"""The server of the web app: what it gives and refuses, its certificate, and the line that it says when it cannot start."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lavit_edge.benchmark import onnxruntime_web
from lavit_edge.errors import UserError
from lavit_edge.serve import certificate as certificates
from lavit_edge.serve import server as serve
from lavit_edge.serve.__main__ import print_invitation
from lavit_edge.serve.certificate import certificate


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for ONNX Runtime Web's files, which these tests do not run."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in json.loads((onnxruntime_web.web_folder() / onnxruntime_web.PIN).read_text())["files"]:
        (folder / name).write_text(name)
    monkeypatch.setattr(onnxruntime_web, "fetch", lambda: folder)


@pytest.fixture
def files(runtime: None, tmp_path: Path) -> dict[str, serve.File]:
    (tmp_path / "model.onnx").write_bytes(b"model")
    return serve.site(tmp_path / "model.onnx")


@pytest.fixture
def port(files: dict[str, serve.File]) -> Iterator[int]:
    with serve.serving("127.0.0.1", 0, files) as port:
        yield port


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lavit-edge-serve"


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_accept_encoding=True)  # as it is, without a client's own tidying
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def test_every_file_has_its_type_and_the_headers_that_threads_need(port: int, files: dict[str, serve.File]) -> None:
    kinds = {"/": "text/html; charset=utf-8", "/runtime/ort.wasm.min.mjs": "text/javascript; charset=utf-8"}
    kinds |= {"/runtime/ort-wasm-simd-threaded.wasm": "application/wasm", "/manifest.webmanifest": "application/manifest+json"}
    assert kinds.keys() < files.keys()
    for path, file in files.items():
        status, headers, content = ask(port, path)
        assert (status, content) == (200, file.content)
        assert headers["Content-Type"] == kinds.get(path, file.kind)
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        status, headers, content = ask(port, path, If_None_Match=headers["ETag"])
        assert (status, content) == (304, b"")
        status, headers, content = ask(port, path, "HEAD")
        assert (status, headers["Content-Length"], content) == (200, str(len(file.content)), b"")


def test_the_page_asks_for_nothing_that_is_not_served(files: dict[str, serve.File]) -> None:
    """Each file of the app is there, and the service worker keeps them all."""
    web = onnxruntime_web.web_folder()
    on_disk = {f"/{file.relative_to(web)}" for pattern in ("*.js", "lib/*.js", "*.css", "*.svg") for file in web.glob(pattern)}
    assert on_disk - {"/lib/headless.js"} <= files.keys()
    kept = {name.removeprefix("./") for name in json.loads(files["/files.json"].content)}
    assert {f"/{name}" for name in kept} == files.keys() - {"/files.json"}


def test_nothing_else_is_given(port: int) -> None:
    paths = [
        "/lib",
        "/lib/",
        "/runtime/",
        "/../pyproject.toml",
        "/lib/../../../README.md",
        "/lib/%2e%2e/app.js",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/etc/passwd",
        "/lib\\headless.js",
        "/lib/headless.js",
        "/index.html/..",
        "/onnxruntime-web.json",
        "/README.md",
    ]
    for path in paths:
        status, _, content = ask(port, path)
        assert status == 404, path
        assert b"import" not in content
        assert b"root:" not in content


def test_what_is_no_request_is_refused_and_others_are_served_on(port: int) -> None:
    assert ask(port, "/", "POST")[0] == 501
    with socket.create_connection(("127.0.0.1", port), timeout=30) as silent:
        silent.sendall(b"GET / HT")
        assert ask(port, "/?from=phone")[0] == 200
    with socket.create_connection(("127.0.0.1", port), timeout=30) as rubbish:
        rubbish.sendall(b"\x16\x03\x01\x00\r\n\r\n")
        assert b"400" in rubbish.recv(1000)
    assert ask(port, "/")[0] == 200


def test_https_with_a_certificate_for_the_address_and_clients_that_stall(files: dict[str, serve.File], cache: Path) -> None:
    pem, fingerprint = certificate("127.0.0.1")
    assert pem.parent == cache
    assert stat.S_IMODE(pem.stat().st_mode) == 0o600
    assert len(fingerprint) == 95
    with serve.serving("127.0.0.1", 0, files, pem) as port, socket.create_connection(("127.0.0.1", port)):  # says nothing
        for trusts in (False, True):  # the first goes away in the middle of the handshake
            context = ssl.create_default_context()
            if trusts:
                context.load_verify_locations(pem)
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
            if trusts:
                connection.request("GET", "/model.onnx")
                assert connection.getresponse().read() == b"model"
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    connection.request("GET", "/")
            connection.close()


def test_a_certificate_is_kept_until_it_ends_soon_or_is_damaged(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, first = certificate("192.0.2.7")
    assert certificate("192.0.2.7") == (pem, first)
    assert certificate("192.0.2.8")[0] != pem
    pem.write_text("damaged")
    _, second = certificate("192.0.2.7")
    assert second != first
    monkeypatch.setattr(certificates, "LEFT", certificates.LASTS)
    _, third = certificate("192.0.2.7")
    assert third != second
    assert {file.name for file in cache.iterdir()} == {"192.0.2.7.pem", "192.0.2.8.pem"}
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_the_invitation_has_the_address_and_a_code(capsys: pytest.CaptureFixture[str]) -> None:
    print_invitation("https://192.0.2.7:8000/", ":".join(["AB"] * 32))
    printed = capsys.readouterr().out
    assert "https://192.0.2.7:8000/" in printed
    assert printed.count("AB:AB") > 2
    lines = [line for line in printed.splitlines() if set(line) & set("█▀▄")]
    assert len(lines) > 10
    assert len({len(line) for line in lines}) == 1


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    with pytest.raises(UserError, match="this machine is in no network"):
        certificates.lan_address()


def test_a_taken_port_is_said(port: int, files: dict[str, serve.File]) -> None:
    with (
        pytest.raises(UserError, match=rf"port {port} of 127\.0\.0\.1 is taken; choose another"),
        serve.serving("127.0.0.1", port, files),
    ):
        pass


@pytest.mark.slow
def test_which_model_is_meant(tiny_onnx: Path, tmp_path: Path) -> None:
    assert serve.find_model(tiny_onnx) == tiny_onnx
    assert serve.find_model(tiny_onnx.parent) == tiny_onnx
    assert serve.check_model(tiny_onnx).contract.size == 64
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.onnx").touch()
    assert serve.find_model(tmp_path) == tmp_path / "a" / "model.onnx"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx").touch()
    with pytest.raises(UserError, match=r"has several bundles, name one: .*a, .*b"):
        serve.find_model(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "missing does not exist; python -m lavit_edge.export writes a bundle"),
        (["empty"], "empty holds no model.onnx"),
        (["model.pte"], "the page runs an .onnx only"),
        (["foreign.onnx"], "has no digest; only an artifact exported by lavit-edge can test itself"),
        (["--port", "70000"], "--port must be 0 to 65535"),
        (["--port", "x"], "invalid int value: 'x'"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.pte").touch()
    (tmp_path / "foreign.onnx").write_bytes(b"\x08\x07")
    command = [sys.executable, "-m", "lavit_edge.serve", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(tiny_onnx: Path, tmp_path: Path) -> None:
    try:
        onnxruntime_web.fetch()
    except UserError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    command = [sys.executable, "-m", "lavit_edge.serve", str(tiny_onnx), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        assert server.stdout.readline() == f"{tiny_onnx}: 10 labels, 64 px\n"
        port = int(server.stdout.readline().split("/")[2].split(":")[1])
        assert ask(port, "/model.onnx")[2] == tiny_onnx.read_bytes()
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130
        assert server.stderr.read() == "interrupted\n"
