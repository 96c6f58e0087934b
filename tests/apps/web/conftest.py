"""The web app in headless Chromium, with a fake camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lavit_edge.benchmark import onnxruntime_web
from lavit_edge.benchmark.browser import find_chromium
from lavit_edge.errors import UserError
from lavit_edge.serve import server as serve

PATIENCE = 60_000  # ms; on a busy machine the runtime alone takes seconds to compile
CAMERA = "--use-fake-device-for-media-stream=device-count=2"


@pytest.fixture(scope="module")
def playwright(lack: Callable[[str], NoReturn]) -> Iterator[Any]:
    try:
        find_chromium()
        onnxruntime_web.fetch()
        from playwright.sync_api import sync_playwright
    except (UserError, ImportError) as error:
        lack(str(error))
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
        standard: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "service_workers": "block" if model else "allow"}
        if camera:
            standard["permissions"] = ["camera"]
        context = by.new_context(**(standard | options))
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
