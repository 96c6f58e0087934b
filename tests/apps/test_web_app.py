"""The web app in headless Chromium: what it shows of a fake camera and of pictures, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lavit_edge
from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_artifact, read_entries
from lavit_edge.benchmark import onnxruntime_web
from lavit_edge.benchmark.browser import ISOLATION, find_chromium
from lavit_edge.benchmark.report import edited, parse_report
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import to_input
from lavit_edge.errors import UserError
from lavit_edge.serve import server as serve
from lavit_edge.serve.certificate import certificate

from .conftest import lacking

pytestmark = [pytest.mark.apps, pytest.mark.slow]
PICTURES = sorted((Path(lavit_edge.__file__).parent / "pictures_cc0" / "val").glob("*/*.jpg"))
WIDTH, HEIGHT = 640, 480
THUMBNAIL = (8, 6)
PATIENCE = 60_000  # ms; on a busy machine the runtime alone takes seconds to compile
CAMERA = "--use-fake-device-for-media-stream"
# what the camera's picture is, as luma of 8 x 6 blocks, and the label shown at that moment
LOOK = """() => {
    const canvas = new OffscreenCanvas(8, 6), context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(document.getElementById("video"), 0, 0, 8, 6);
    const { data } = context.getImageData(0, 0, 8, 6);
    const luma = (_, at) => 0.299 * data[4 * at] + 0.587 * data[4 * at + 1] + 0.114 * data[4 * at + 2];
    return [Array.from({ length: 48 }, luma), document.querySelector("#answers .label")?.textContent ?? null];
}"""


@pytest.fixture(scope="module")
def other_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Int8, and all that the contract says is another than the tiny model's: size, labels, resize, filter, means."""
    import torch

    from lavit_edge.checkpoint import load_checkpoint, save_checkpoint
    from lavit_edge.doctor.smallest import OPTIONS, int8_form
    from lavit_edge.export.golden import make_payload
    from lavit_edge.export.targets import TARGETS
    from lavit_edge.models import create_model
    from lavit_edge.models.deployed import Deployed
    from lavit_edge.quantize import int8_program

    folder = tmp_path_factory.mktemp("other")
    labels = (
        "Straße",
        "猫",
        "<b>bold</b>",
        "a label that is so long that it does not fit on a phone's screen in one line",
        "é",
        "6",
    )
    contract = InputContract(96, labels, "crop", "bilinear", 0.875, (0.4, 0.5, 0.6), (0.3, 0.2, 0.25))
    torch.manual_seed(0)
    with torch.no_grad():
        model = create_model("lavit_mobile_s", num_classes=len(labels), image_size=96, **OPTIONS).eval()
        torch.nn.init.normal_(model.get_parameter("head.weight"), std=0.005)
        inputs = [torch.from_numpy(to_input(Image.open(file).convert("RGB"), contract)) for file in PICTURES]
        pictures = torch.stack(inputs).permute(0, 3, 1, 2).float()
        model.get_parameter("head.bias").sub_(Deployed(model, contract)(pictures).mean(0))  # else one label is always first
        int8 = int8_form(Deployed(model, contract).eval(), pictures)
        spec = {"name": "lavit_mobile_s", "options": OPTIONS}
        save_checkpoint(folder / "c", model.state_dict(), model=spec, contract=contract, card="# other\n", int8=int8)
        program = int8_program(load_checkpoint(folder / "c"))
        payload = make_payload(program, contract, {"checkpoint": {"name": "other"}, "precision": "int8"}, 50.0)
        TARGETS["onnx"].export(program, payload, folder / "model.onnx")
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    try:
        find_chromium()
        onnxruntime_web.fetch()
        from playwright.sync_api import sync_playwright
    except (UserError, ImportError) as error:
        lacking(str(error))
    with sync_playwright() as library:
        yield library


def launch(playwright: Any, *flags: str) -> Any:
    return playwright.chromium.launch(executable_path=find_chromium(), args=list(flags))


@pytest.fixture(scope="module")
def browser(playwright: Any) -> Iterator[Any]:
    """With a camera that shows Chromium's own moving test picture."""
    found = launch(playwright, CAMERA)
    yield found
    found.close()


@pytest.fixture(scope="module")
def files(tiny_onnx: Path, playwright: Any) -> dict[str, serve.File]:
    return serve.site(tiny_onnx)


@pytest.fixture(scope="module")
def url(files: dict[str, serve.File]) -> Iterator[str]:
    with serve.serving("127.0.0.1", 0, files) as port:
        yield f"http://localhost:{port}/"


@pytest.fixture
def visit(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """``visit()``: the app with its model open, in a profile of its own. At the end no script has failed anywhere."""
    contexts, failed = [], []

    def make(
        ready: str = "#start:enabled",
        at: str = url,
        model: bytes | None = None,
        by: Any = browser,
        camera: bool = True,
        **options: Any,
    ) -> Any:
        options |= {"permissions": ["camera"]} if camera else {}
        context = by.new_context(viewport={"width": 360, "height": 740}, service_workers="block" if model else "allow", **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        if model is not None:
            page.route("**/model.onnx", lambda route: route.fulfill(body=model, headers=dict(serve.HEADERS)))
        page.goto(at)
        page.wait_for_selector(ready)
        return page

    yield make
    for context in contexts:
        context.close()
    assert not failed


def worker_of(page: Any) -> Any:
    """That of the app; the runtime has some of its own, for its threads."""
    return next(worker for worker in page.workers if worker.url.endswith("/worker.js"))


def answers_of(model: Path) -> Callable[[Image.Image], list[tuple[str, float]]]:
    """What Python says of a picture: all labels with their probabilities, the most probable first."""
    run, contract = open_artifact(model, threads=1), read_payload(read_entries(model)).contract

    def answer(picture: Image.Image) -> list[tuple[str, float]]:
        logits = run(to_input(picture, contract)).astype(float)
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        return sorted(zip(contract.labels, shares.tolist(), strict=True), key=lambda item: -item[1])

    return answer


def frames(picture: Image.Image) -> tuple[bytes, Image.Image]:
    """A frame of the fake camera, I420 as BT.601 has it, and what it is when it is RGB again."""
    rgb = np.asarray(picture.convert("RGB").resize((WIDTH, HEIGHT))).astype(float) / 255
    y = 16 + rgb @ (65.481, 128.553, 24.966)
    half = rgb.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    planes = [y, 128 + half @ (-37.797, -74.203, 112.0), 128 + half @ (112.0, -93.786, -18.214)]
    y, blue, red = (np.clip(plane.round(), 0, 255).astype(np.uint8) for plane in planes)
    light = 1.164384 * (y.astype(float) - 16)
    u, v = (np.repeat(np.repeat(plane.astype(float) - 128, 2, 0), 2, 1) for plane in (blue, red))
    back = np.stack([light + 1.596027 * v, light - 0.391762 * u - 0.812968 * v, light + 2.017232 * u], -1)
    return b"".join(plane.tobytes() for plane in (y, blue, red)), Image.fromarray(back.clip(0, 255).round().astype(np.uint8))


def clip(model: Path, path: Path) -> list[tuple[np.ndarray, str]]:
    """Writes a clip of pictures that the model calls differently and is sure of, a second each; their thumbnails and labels.

    Sure: the lead of the first label is ten times what a frame's rounding to YUV changes in any probability.
    """
    answer, best = answers_of(model), {}
    for file in PICTURES:
        raw, picture = frames(Image.open(file))
        (label, first), (_, second), *_ = found = answer(picture)
        exact = dict(answer(Image.open(file).convert("RGB").resize((WIDTH, HEIGHT))))
        lead = (first - second) / max(abs(share - exact[name]) for name, share in found)
        if lead > best.get(label, (10.0,))[0]:
            best[label] = lead, raw, picture
    surest = sorted(best.items(), key=lambda item: -item[1][0])[:3]
    assert len(surest) >= 2, "a model that says the same of every picture shows nothing"
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F10:1 Ip A1:1 C420jpeg\n" % (WIDTH, HEIGHT))
        for _, (_, raw, _) in surest:
            file.write((b"FRAME\n" + raw) * 10)
    return [
        (np.asarray(picture.convert("L").resize(THUMBNAIL, Image.Resampling.BOX)), label) for label, (_, _, picture) in surest
    ]


@pytest.mark.parametrize("which", ["tiny_onnx", "other_onnx"])
def test_the_label_follows_what_the_camera_shows(
    which: str, request: pytest.FixtureRequest, playwright: Any, visit: Callable[..., Any], tmp_path: Path
) -> None:
    model: Path = request.getfixturevalue(which)
    shown = clip(model, tmp_path / "clip.y4m")
    waiting, seen = {label for _, label in shown}, set()
    browser = launch(playwright, CAMERA, f"--use-file-for-fake-video-capture={tmp_path}/clip.y4m")
    page = visit(by=browser, model=model.read_bytes())
    contract = read_payload(read_entries(model)).contract
    assert f"{contract.size} px, {len(contract.labels)} labels" in page.inner_text("#model")
    assert "Self-test passed: " in page.inner_text("#selftest")
    page.click("#start")
    page.wait_for_selector("#answers .label")
    for _ in range(600):
        luma, label = page.evaluate(LOOK)
        distances = [np.abs(np.reshape(luma, THUMBNAIL[::-1]) - thumbnail).mean() for thumbnail, _ in shown]
        assert min(distances) < 10, "the camera shows something else"
        seen.add(label)
        if label == shown[int(np.argmin(distances))][1]:
            waiting.discard(label)
        if not waiting:
            break
        page.wait_for_timeout(100)
    assert not waiting, f"never shown with their pictures; shown were {seen}"
    assert seen == {label for _, label in shown}
    assert page.locator("#answers li").count() == 3
    for figure in ("fps", "model-ms", "prepare-ms", "copy-ms"):
        assert float(page.inner_text(f"#{figure}")) > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"
    page.click("#start")
    assert page.locator("#answers li").count() == 0
    browser.close()


@pytest.mark.parametrize("which", ["tiny_onnx", "other_onnx"])
def test_a_picture_gets_pythons_labels_and_probabilities(
    which: str, request: pytest.FixtureRequest, visit: Callable[..., Any], tmp_path: Path
) -> None:
    model: Path = request.getfixturevalue(which)
    page = visit(model=model.read_bytes())
    transparent = Image.open(PICTURES[0]).convert("RGBA").resize((333, 97))
    transparent.putalpha(Image.fromarray(np.where(np.indices((97, 333))[1] < 150, 0, 255).astype(np.uint8)))
    over_white = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent).convert("RGB")
    answer = answers_of(model)
    step = 0.002 if which == "tiny_onnx" else 0.05  # int8 kernels of another machine may round a code otherwise
    for index, (picture, upright) in enumerate([(transparent, over_white), (Image.open(PICTURES[4]),) * 2]):
        picture.save(tmp_path / f"{index}.png")
        page.set_input_files("#file", tmp_path / f"{index}.png")
        page.wait_for_selector("#picture:visible")
        labels, shares = (
            page.locator("#answers .label").all_inner_texts(),
            page.locator("#answers .probability").all_inner_texts(),
        )
        expected = dict(answer(upright.convert("RGB")))
        for label, share in zip(labels, shares, strict=True):
            assert abs(float(share.removesuffix(" %")) / 100 - expected[label]) < step
        assert len(labels) == 3
        page.click("#start")  # clears it
        page.click("#start")
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.set_input_files("#file", tmp_path / "no.png")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem") == "no.png is not a picture that this browser can decode."
    assert not page.locator("#answers li").count()


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
    newer = json.dumps({**payload.contract.to_dict(), "format": "lavit_edge.contract/2"})
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
        (resealed_onnx(contract=newer).read_bytes(), "not 'lavit_edge.contract/2'; a newer one needs a newer lavit-edge"),
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
        assert said.startswith("The model cannot be used: ")
        assert re.search(reason, said), said
        assert said.endswith("Nothing is classified.")
        assert page.locator("#start:disabled, #measure:disabled, #file:disabled").count() == 3
        assert page.inner_text("#model") == "No model"
        assert not page.locator("#answers li").count()


def test_the_camera_can_be_stopped_and_started_at_any_moment(visit: Callable[..., Any]) -> None:
    page = visit()
    for _ in range(3):
        page.click("#start")
        page.click("#start")  # perhaps before the camera is open
        assert page.inner_text("#start") == "Camera", page.inner_text("#problem")
        page.click("#start")
        page.wait_for_selector("#answers .label, #problem:visible")
        page.click("#turn")
        page.wait_for_selector("#answers .label, #problem:visible")
        assert not page.is_visible("#problem"), page.inner_text("#problem")
        page.click("#start")
        assert not page.locator("#answers li").count()


def test_a_camera_that_is_not_permitted_then_permitted_then_taken_away(visit: Callable[..., Any]) -> None:
    page = visit(camera=False)
    page.click("#start")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("The camera is not permitted. Allow it")
    page.context.grant_permissions(["camera"])
    page.click("#start")
    page.wait_for_selector("#answers .label, #problem:visible")
    assert not page.is_visible("#problem"), page.inner_text("#problem")
    page.context.clear_permissions()
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("The camera was taken away.")
    assert not page.locator("#answers li").count()
    assert page.inner_text("#start") == "Camera"


def test_without_a_camera(playwright: Any, visit: Callable[..., Any]) -> None:
    browser = launch(playwright)
    page = visit(by=browser)
    page.click("#start")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("There is no camera here.")
    browser.close()


def test_a_frame_of_unexpected_format_stops_the_camera(visit: Callable[..., Any]) -> None:
    page = visit()
    worker = worker_of(page)
    page.click("#start")
    page.wait_for_selector("#answers .label")
    worker.evaluate("VideoFrame.prototype.copyTo = async () => [{ offset: 0, stride: 4096 }]")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("Stopped: a frame of unexpected format: 640 x 480, ")
    assert not page.locator("#answers li").count()


def test_a_frame_allocates_no_large_buffer(visit: Callable[..., Any]) -> None:
    page = visit()
    worker = worker_of(page)
    page.click("#start")
    page.wait_for_selector("#answers .label")
    worker.evaluate("""() => {
        self.large = [];
        self.frames = 0;
        const post = self.postMessage;
        self.postMessage = (...given) => { self.frames += 1; return post.apply(self, given); };
        const kinds = ["Uint8Array", "Uint8ClampedArray", "Int32Array", "Uint32Array", "Float32Array", "Float64Array"];
        for (const name of ["ArrayBuffer", "SharedArrayBuffer", ...kinds]) {
            if (!self[name]) continue;
            self[name] = new Proxy(self[name], { construct(target, given) {
                const made = Reflect.construct(target, given);
                const view = given[0] instanceof Object && "byteLength" in given[0] && !ArrayBuffer.isView(given[0]);
                if (!view && made.byteLength > 16384) self.large.push(`${name} ${made.byteLength}`);
                return made;
            } });
        }
        for (const drawing of [OffscreenCanvas.prototype, OffscreenCanvasRenderingContext2D.prototype])
            for (const name of ["getContext", "getImageData"])
                if (drawing[name]) drawing[name] = () => self.large.push(name);
        return new Float32Array(8192).length;
    }""")
    page.wait_for_timeout(1000)
    for _ in range(300):
        counted, large = worker.evaluate("[self.frames, self.large]")
        if counted >= 30:
            break
        page.wait_for_timeout(100)
    assert counted >= 30
    assert large == ["Float32Array 32768"], "the one that shows that they are counted"


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
    assert page.inner_text("#problem").startswith("The page was hidden during the benchmark")
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
