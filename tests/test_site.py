"""The website and the slides in a browser, with the network off: two lessons and the pages around them,
or with EMOKD_RELEASE every page."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe
from filelock import FileLock

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
WHOLE = bool(os.environ.get("EMOKD_RELEASE"))
EXPLORERS = [] if WHOLE else ["--explorers", "06"]
LESSONS = ("06_where_they_disagree", "08_the_gate")
PAGES = ["index", "glossary", "run_it_yourself", "reference/emokd_utils.gates"]
PAGES += [f"lessons/{name}" for name in LESSONS]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site with its slides, built once for all workers, on the run that comes with the course."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    with FileLock(shared / "site.lock"):
        if not (shared / "site" / "slides" / "index.html").exists():
            command = [sys.executable, "docs/make.py"]
            own = os.environ | {"EMOKD_RUNS": str(shared / "site-runs")}
            for more in (
                ["site", str(shared / "site"), *EXPLORERS],
                ["slides", str(shared / "site/slides")],
            ):
                subprocess.run([*command, *more], cwd=ROOT, check=True, env=own)
    return shared / "site"


@pytest.fixture
def opened(browser):
    """Open a page with the network off; a request that leaves it, or an error, fails the test."""
    context, troubles = browser.new_context(offline=True), []

    def open_it(path, width=1280, height=720, scheme="light"):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda r: r.url.startswith(("file:", "data:", "blob:")) or troubles.append(r.url),
        )
        page.goto(path.as_uri())
        return page

    yield open_it
    context.close()
    assert troubles == []


def pages_of(site):
    chosen = sorted(p for p in site.rglob("*.html") if {"explorers", "slides"}.isdisjoint(p.parts))
    return chosen if WHOLE else [site / f"{name}.html" for name in PAGES]


def test_pages_can_be_used_by_everyone(site, opened):
    """In light and dark, on a narrow screen, formulas and figures read aloud."""
    for path in pages_of(site):
        for scheme in ("light", "dark"):
            page = opened(path, scheme=scheme)
            page.wait_for_function("!window.MathJax || MathJax.startup?.promise")
            found = Axe().run(page).response["violations"]
            grave = [
                (v["id"], v["nodes"][0]["html"])
                for v in found
                if v["impact"] in ("serious", "critical")
            ]
            assert grave == [], path
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        page.close()
        assert path.stat().st_size < 2e6


def test_explorers_live_in_their_frames_and_formulas_have_their_mathml(site, opened):
    page = opened(site / "lessons" / f"{LESSONS[0]}.html")
    assert page.locator("iframe.explorer").count() == 5
    page.locator("iframe.explorer").first.scroll_into_view_if_needed()
    frame = page.frame_locator("iframe.explorer >> nth=0")
    frame.locator("[data-ready]").wait_for(timeout=30_000)
    page.wait_for_selector("mjx-assistive-mml math", state="attached")
    plain = (site / "lessons" / f"{LESSONS[0]}.html").read_text("utf-8")
    assert len(re.findall('<noscript><p><img src="data:image/webp', plain)) == 5


def test_no_link_inside_is_broken_and_no_solution_is_told(site):
    texts = {
        path: path.read_text("utf-8")
        for path in site.rglob("*.html")
        if "explorers" not in path.parts
    }
    for path, text in texts.items():
        for address in re.findall(r'(?:href|src)="([^"]+)"', text):
            target, _, anchor = unquote(address).partition("#")
            if re.match(r"[a-z]+:|//", target) or path.parent.name == "slides" and "{" in target:
                continue
            found = (path.parent / target.partition("?")[0]).resolve() if target else path
            assert found.exists(), f"{path.name}: {address}"
            if anchor and found in texts and "explorers" not in found.parts:
                assert re.search(rf'\bid="{re.escape(anchor)}"', texts[found]), (
                    f"{path.name}: {address}"
                )
    assert not (site / "lessons" / "solutions").exists()
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 45e6


def test_each_slide_is_read_without_scrolling(site, opened):
    page = opened(site / "slides" / "index.html")
    page.wait_for_function("window.Reveal && Reveal.isReady()")
    count = page.evaluate("Reveal.getTotalSlides()")
    assert 20 <= count <= 30
    for number in range(count):
        page.evaluate(f"Reveal.slide({number})")
        high = page.evaluate("Reveal.getCurrentSlide().scrollHeight")
        wide = page.evaluate("Reveal.getCurrentSlide().scrollWidth")
        assert high <= 720 and wide <= 1280, (
            number,
            page.evaluate("Reveal.getCurrentSlide().innerText")[:80],
        )
    assert page.locator("aside.notes").count() == 6
