"""The page: whole in itself, safe, and readable on a phone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from lavit_edge.benchmark.comparison import Table, compare, load
from lavit_edge.benchmark.page import page
from lavit_edge.benchmark.report import Report, latency, write_report

Make = Callable[..., Report]
EVIL = "<script>alert(1)</script>'\" onload=x $\\frac{1}{0}$ &amp;"
PHONE = 390  # CSS pixels


@pytest.fixture
def made(tmp_path: Path, make_report: Make) -> str:
    """A page of three rows with hostile names, one of which held out for four minutes, and one only has quantiles."""
    rng = np.random.default_rng(0)
    long = [int(x) for x in 9e6 * (1 + np.arange(30_000) / 200_000) * np.exp(0.02 * rng.normal(size=30_000))]
    folder = tmp_path / "reports"
    write_report(make_report(device__name=EVIL, notes=[EVIL], device__cpu=EVIL, artifact__model=EVIL), folder / "1.json")
    write_report(make_report([8_000_000 + x % 997 for x in range(3000)], runtime__backend=EVIL), folder / "2.json")
    write_report(make_report(latency=latency(long, [0, *accumulate(long[:-1])])), folder / "3.json")
    forced = {"passed": False, "pictures": 4, "same_top1": 0, "worst_millisteps": None, "forced": False, "detail": EVIL}
    write_report(make_report(latency=None, self_test=forced, device__name="another"), folder / "4.json")
    (folder / "<img src=x onerror=alert(1)>.json").write_text("{}")
    groups, left_out = load([folder])
    return page(Table(compare(groups, groups[0]), 4, left_out))


class Reader(HTMLParser):
    """Collects tags, their attributes and the text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_of_a_report_becomes_markup(made: str) -> None:
    reader = Reader(made)
    assert not {"script", "img"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert reader.text.count("<script>alert(1)</script>") >= 4
    assert "$\\frac{1}{0}$" in reader.text
    assert "<img src=x onerror=alert(1)>.json" in reader.text


def test_nothing_is_fetched_from_elsewhere(made: str) -> None:
    reader = Reader(made)
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(reader.tags)
    loaded = [value for name, value in reader.attributes if name in {"src", "href", "xlink:href", "data", "action"}]
    assert all(value.startswith("#") for value in loaded)
    namespaces = {value for name, value in reader.attributes if name.startswith("xmlns")}
    told = set(re.findall(r"(?:https?:)?//[^\s'\"<>)]+", made)) - namespaces
    assert told == set()
    assert "@import" not in made
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", made))


def test_the_page_has_its_plots_and_verdicts(made: str) -> None:
    reader = Reader(made)
    assert reader.tags.count("svg") == 4
    assert ("name", "viewport") in reader.attributes
    for words in (
        "Distribution of the runs",
        "Quantiles",
        "each whole minute",
        "top-1, %",
        "slower",
        "self-test failed",
        "no telling",
    ):
        assert words in reader.text, words


def test_one_short_report_has_a_page_too(tmp_path: Path, make_report: Make) -> None:
    write_report(make_report([5_000_000], artifact__top1_permille=None), tmp_path / "one.json")
    groups, _ = load([tmp_path])
    text = Reader(page(Table(compare(groups, None), 1))).text
    assert "No run lasted two minutes" in text
    assert "size, MB" in text


def test_a_report_without_times_has_a_page_without_plots(tmp_path: Path, make_report: Make) -> None:
    failed = {"passed": False, "pictures": 4, "same_top1": 0, "worst_millisteps": None, "forced": False, "detail": None}
    write_report(make_report(latency=None, self_test=failed), tmp_path / "one.json")
    groups, _ = load([tmp_path])
    reader = Reader(page(Table(compare(groups, None), 1)))
    assert "svg" not in reader.tags
    assert "self-test failed" in reader.text


def browser() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI"):
        pytest.fail("chromium is not installed")
    if found is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    return found


def shown(made: str, folder: Path, *options: str) -> str:
    """What a browser makes of the page in a frame as wide as a phone: its own windows are at least 500 pixels wide."""
    width = "document.documentElement.scrollWidth"
    drawn = "Math.round(Math.min(...[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)))"
    script = (
        f"<script>onload = () => parent.document.title = 'wide ' + {width} + ' of ' + innerWidth + ' plots ' + {drawn}</script>"
    )
    (folder / "inner.html").write_text(made + script, encoding="utf-8")
    frame = f"<iframe src=inner.html style='border:0;width:{PHONE}px;height:3000px'></iframe>"
    (folder / "outer.html").write_text(f"<title>nothing</title><body style='margin:0'>{frame}", encoding="utf-8")
    words = [browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--hide-scrollbars"]
    words += [f"--user-data-dir={folder / 'profile'}", f"--window-size={PHONE + 110},3000", *options]
    done = subprocess.run([*words, (folder / "outer.html").as_uri()], capture_output=True, text=True, timeout=120)
    return done.stdout


@pytest.mark.slow
def test_a_phone_shows_the_page_without_scrolling_sideways(made: str, tmp_path: Path) -> None:
    found = re.search(r"<title>wide (\d+) of (\d+) plots (\d+)</title>", shown(made, tmp_path, "--dump-dom"))
    assert found is not None
    wide, window, plots = map(int, found.groups())
    assert window == PHONE
    assert wide <= PHONE
    assert plots > 0.85 * PHONE


@pytest.mark.slow
def test_a_page_that_is_too_wide_would_be_seen(tmp_path: Path) -> None:
    page = "<!doctype html><svg width=300></svg><div style='width:700px'>x</div>"
    assert "<title>wide 7" in shown(page, tmp_path, "--dump-dom")


@pytest.mark.slow
def test_the_plots_are_drawn_in_their_colours(made: str, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "page.png"
    shown(made, tmp_path, f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3).astype(int)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)):
        assert (np.abs(pixels - colour).max(axis=1) < 12).sum() > 200, colour


@pytest.mark.slow
def test_the_verdict_is_on_the_screen(made: str, look: Callable[[str, str], dict[int, list[float]]]) -> None:
    """Next to the row's number, on a phone and on a laptop, whatever the names of devices are."""
    for width, (wider, *edges) in look(made, "td.verdict").items():
        assert wider <= 0
        assert len(edges) == 4
        assert all(0 < edge <= width for edge in edges), (width, edges)
