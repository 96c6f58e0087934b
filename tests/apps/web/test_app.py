"""The app around its model: threads, artifacts that it refuses, its benchmark, offline, and over the network."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import read_entries
from lavit_edge.benchmark.browser import ISOLATION
from lavit_edge.benchmark.report import edited, parse_report
from lavit_edge.serve import server as serve
from lavit_edge.serve.certificate import certificate

pytestmark = [pytest.mark.apps, pytest.mark.slow]


def test_threads_where_the_page_is_isolated_and_one_elsewhere(
    visit: Callable[..., Any], files: dict[str, serve.File], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    cores = page.evaluate("navigator.hardwareConcurrency")
    assert page.evaluate("crossOriginIsolated")
    assert page.locator("#threads option").count() == min(cores, 8)
    most = min(cores, 8)
    threads = max(1, min(most - 1, 4))
    assert page.inner_text("#model").endswith(" 1 thread" if threads == 1 else f" {threads} threads")
    page.select_option("#threads", str(most))
    page.wait_for_selector(f"#model:has-text('{most} thread')")
    monkeypatch.setattr(serve, "HEADERS", tuple(header for header in serve.HEADERS if header not in ISOLATION))
    with serve.serving("127.0.0.1", 0, files) as port:
        page = visit(at=f"http://localhost:{port}/")
    assert not page.evaluate("crossOriginIsolated")
    assert page.locator("#threads option").count() == 1
    assert page.inner_text("#model").endswith(" 1 thread")


def test_artifacts_that_cannot_be_used_are_refused_with_a_reason(
    visit: Callable[..., Any], tiny_onnx: Path, resealed_onnx: Callable[..., Path]
) -> None:
    whole, payload = tiny_onnx.read_bytes(), read_payload(read_entries(tiny_onnx))
    text = payload.contract.to_json().encode()
    newer = json.dumps({**payload.contract.to_dict(), "format": "lavit_edge.contract/3"})
    otherwise = replace(payload.contract, resize="crop", interpolation="bilinear").to_json()
    first, *rest = payload.golden
    answers = replace(payload, golden=(replace(first, logits=first.logits[::-1].copy()), *rest)).metadata()[
        "org.lavit_edge.golden"
    ]
    bad = [
        (whole.replace(text, text.replace(b'"squash"', b'"crop"  ')), "is not what was exported: its bytes have SHA-256"),
        (whole[: len(whole) // 2], "has no digest; only an artifact exported by lavit-edge"),
        (b"no model", "has no digest"),
        (bytes([whole[0] ^ 255]) + whole[1:], "is not what was exported"),
        (resealed_onnx(golden=None).read_bytes(), "entry 'golden' is missing"),
        (resealed_onnx(contract=newer).read_bytes(), "not 'lavit_edge.contract/3'; a newer one needs a newer lavit-edge"),
        (resealed_onnx(contract=otherwise).read_bytes(), "fails its self-test here: .* resizing or channel order differs"),
        (resealed_onnx(golden=answers).read_bytes(), f"fails its self-test here: {first.name}: logits: at most"),
    ]
    assert bad[0][0] != whole
    page = visit(model=whole)
    served = {}
    page.route("**/model.onnx", lambda route: route.fulfill(body=served["model"], headers=dict(serve.HEADERS)))
    for served["model"], reason in bad:
        page.reload()
        page.wait_for_selector("#problem:visible")
        said = page.inner_text("#problem")
        assert said.startswith("The model model.onnx cannot be used: ")
        assert re.search(reason, said), said
        assert said.endswith("Nothing is classified.")
        assert page.locator("#start:disabled, #measure:disabled, #file:disabled").count() == 3
        assert page.inner_text("#model") == "No model"
        assert not page.locator("#answers li").count()


def test_the_benchmark_writes_the_report_that_every_harness_writes(visit: Callable[..., Any], tiny_onnx: Path) -> None:
    page = visit()
    page.select_option("#seconds", "1")
    page.select_option("#threads", "1")
    page.wait_for_selector("#measure:enabled")
    page.click("#measure")
    with page.expect_download() as download:
        page.click("#report")
    report = parse_report(download.value.path().read_text("utf-8"), "the page's report")
    assert not edited(report)
    assert report["harness"]["name"] == "web"
    assert report["artifact"]["file"] == tiny_onnx.name
    assert report["artifact"]["bytes"] == tiny_onnx.stat().st_size
    assert (report["self_test"]["passed"], report["settings"]["threads"]) == (True, 1)
    assert report["latency"]["runs"] >= 50
    assert report["least_duration_met"]
    assert report["device"]["arch"] == "wasm32"
    assert page.inner_text("#result").startswith(f"Median {report['latency']['p50_ns'] / 1e6:.1f} ms, ")
    page.wait_for_selector("#start:enabled")  # the model is open again
    assert not page.is_visible("#problem")


def test_a_benchmark_of_a_page_that_is_hidden_reports_nothing(visit: Callable[..., Any]) -> None:
    page = visit()
    page.select_option("#seconds", "60")
    page.click("#measure")
    page.wait_for_selector("#progress[value]")
    page.evaluate("""() => {  // headless pages are never hidden
        Object.defineProperty(document, "hidden", { configurable: true, value: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("Benchmark of model.onnx: the page was hidden")
    page.wait_for_selector("#start:enabled")
    assert not page.is_visible("#report")
    assert page.inner_text("#result") == ""


def test_offline_and_installable(visit: Callable[..., Any], tiny_onnx: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "lavit_edge.serve", str(tiny_onnx), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=tmp_path, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        address = server.stdout.readline().split()[0]
        page = visit(at=address)
        page.wait_for_selector("#offline:has-text('it works offline')")
        session = page.context.new_cdp_session(page)
        problems = {error["errorId"] for error in session.send("Page.getInstallabilityErrors")["installabilityErrors"]}
        assert problems <= {"in-incognito"}, "what Chromium asks of an app but for the test's own profile"
        assert session.send("Page.getAppManifest")["errors"] == []
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 130
    page.reload()
    page.wait_for_selector("#start:enabled")
    assert page.evaluate("crossOriginIsolated"), "threads offline too"
    page.click("#start")
    page.wait_for_selector("#answers .label")
    with socket.create_server(("127.0.0.1", urlsplit(address).port)):  # takes connections and says nothing
        page.reload()
        page.wait_for_selector("#start:enabled")
        page.wait_for_selector("#offline:has-text('it works offline')")
        waited = "performance.getEntriesByType('resource').filter((file) => file.responseEnd - file.startTime > 2500).length"
        assert page.evaluate(waited) <= 1, "such a server is waited for once, not for each file"


def test_another_state_of_the_server_is_kept_whole_and_replaces_the_one_before(
    visit: Callable[..., Any], files: dict[str, serve.File], resealed_onnx: Callable[..., Path]
) -> None:
    contract = read_payload(read_entries(resealed_onnx())).contract
    other = serve.site(resealed_onnx(contract=replace(contract, threshold=0.5).to_json()))
    other["/lib/added.js"] = serve.file_of(".js", b"export {};")
    listed = [*json.loads(other["/files.json"].content), "lib/added.js"]
    other["/files.json"] = serve.file_of(".json", json.dumps(listed).encode())
    served, kept = dict(files), "#offline:has-text('it works offline')"
    with serve.serving("127.0.0.1", 0, served) as port:
        page = visit(at=f"http://localhost:{port}/")
        page.wait_for_selector(kept)
        (before,) = page.evaluate("caches.keys()")
        served.clear()
        served.update(other)
        page.reload()
        page.wait_for_selector(kept)
        (after,) = page.evaluate("caches.keys()")
        assert after != before
        names = page.evaluate("async () => (await (await caches.open((await caches.keys())[0])).keys()).map((file) => file.url)")
        assert {url.removeprefix(f"http://localhost:{port}") for url in names} == other.keys() - {"/files.json"}
        tag = "async () => (await caches.match('model.onnx')).headers.get('ETag')"
        assert page.evaluate(tag) == other["/model.onnx"].tag


def test_what_is_missing_is_named(visit: Callable[..., Any], files: dict[str, serve.File]) -> None:
    model = "The model model.onnx cannot be used: "
    served = {path: file for path, file in files.items() if path != "/model.onnx"}
    with serve.serving("127.0.0.1", 0, served) as port:
        page = visit(ready="#problem:visible", at=f"http://localhost:{port}/", service_workers="block")
        for name, said in (
            ("model.onnx", f"{model}cannot be fetched (HTTP 404). Nothing is classified."),
            (
                "runtime/ort.wasm.min.mjs",
                f"{model}ONNX Runtime Web cannot be loaded (ort.wasm.min.mjs: ",
            ),
            ("worker.js", f"{model}worker.js or a file that it imports cannot be loaded. "),
            ("about.json", "about.json: HTTP 404. Nothing is classified."),
        ):
            served.clear()
            served.update({path: file for path, file in files.items() if path != f"/{name}"})
            page.reload()
            page.wait_for_selector("#problem:visible")
            assert page.inner_text("#problem").startswith(said)


def test_a_phone_on_the_network_has_https_and_with_it_a_camera_and_threads(
    visit: Callable[..., Any], files: dict[str, serve.File], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pem, _ = certificate("127.0.0.1")
    with serve.serving("127.0.0.1", 0, files, pem) as port:
        page = visit(at=f"https://127.0.0.1:{port}/", ignore_https_errors=True)
        assert page.evaluate("isSecureContext && crossOriginIsolated")
        page.click("#start")
        page.wait_for_selector("#answers .label")
