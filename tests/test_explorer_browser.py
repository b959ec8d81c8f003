"""The explorer in a real browser: the page from disk with the network off, the widget in JupyterLab.

They need a Chromium of the system on PATH (Debian: apt install chromium) and are skipped without.
"""

import csv
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.parse import parse_qs, quote

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_explorer import HOSTILE, SCRIPT, made, pictures

from emokd_utils.complementarity import four_way
from emokd_utils.emotions import MIKELS
from emokd_utils.evidence import wilson
from emokd_utils.explorer import GateView, explore
from emokd_utils.predictions import Predictions

pytestmark = pytest.mark.slow

N = 240


@pytest.fixture
def open_page(browser):
    """Open a file with the network off; what went wrong in it fails the test."""
    contexts, troubles, local = [], [], ("file:", "data:", "blob:")

    def open_it(path, view="", width=1280, scheme="light"):
        window = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
        contexts.append(browser.new_context(offline=True, **window))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: r.url.startswith(local) or troubles.append(r.url))
        page.goto(path.as_uri() + (f"#{view}" if view else ""))
        page.wait_for_selector("[data-ready]")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert troubles == []


def widget_of(n):
    """Five models and a gate on n images, with metadata of every kind."""
    a, b = made(n, "VLM, tuned"), made(n, "vision model", 1, answers=False)
    rng = np.random.default_rng(5)
    share = rng.beta(2, 2, n)
    weights = np.stack([share, 1 - share], 1)
    about = {
        "cue": [("content", "atmosphere", "both")[k % 3] for k in range(n)],
        "hue": rng.uniform(0, 360, n).round(1),
        "objects": [f"thing {k % 60};cat {k}" for k in range(n)],
        "label_noise": rng.random(n) < 0.05,
    }
    final, head = (
        made(n, name, k, False) for name, k in (("EmoVLM-KD", 3), ("head, distilled", 2))
    )
    return explore(
        a,
        b,
        pictures(a.ids, 64),
        GateView(final, head, a, weights),
        more={"VLM, zero-shot": made(n, seed=9, skill=1.0)},
        metadata=pd.DataFrame(about, index=a.ids),
        reasons={image: f"There is a thing {k}." for k, image in enumerate(a.ids) if k % 2},
    )


@pytest.fixture(scope="module")
def widget():
    return widget_of(N)


@pytest.fixture(scope="module")
def path(widget, tmp_path_factory):
    return widget.to_html(tmp_path_factory.mktemp("page") / "explorer.html")


def wait_for(page, condition, seconds=30):
    """Until a JavaScript expression is true (the page's policy forbids Playwright's own way)."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        time.sleep(0.02)


def status(page):
    return page.locator(".status").inner_text()


def view_of(page):
    return page.evaluate("location.hash.slice(1)")


def button(page, name):
    return page.get_by_role("button", name=re.compile(name)).first


def download(page):
    with page.expect_download() as waiting:
        button(page, "Download the selection as CSV").click()
    with open(waiting.value.path(), encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def tiles(page):
    return page.locator(".tile button")


@pytest.mark.parametrize(
    ("view", "query", "order"),
    [
        ("cell=b&cell=neither&label=awe", "not correct_a and label == 'awe'", ""),
        ("says_a=fear&says_b=anger", "predicted_a == 'fear' and predicted_b == 'anger'", ""),
        ("conf_a=0.305..0.82&sort=conf_b", "0.305 <= confidence_a <= 0.82", "-confidence_b"),
        ("words=NUMBER+fear", "answer.str.contains('fear')", ""),
        ("words=thing+11", "reason.str.contains('11', na=False)", ""),
        ("gate=wrong&share=0..0.5", "not gate_correct and gate_student_share <= 0.5", ""),
        ("label=awe&label=fear", "label in ['awe', 'fear']", ""),
        ("col.cue=both&col.label_noise=True", "cue == 'both' and label_noise", ""),
        ("col.hue=100.5..200&sort=id", "100.5 <= hue <= 200", "id"),
        ("col.objects=cat+12&sort=conf_a&order=up", "objects.str.contains('12')", "confidence_a"),
    ],
)
def test_a_view_shows_what_pandas_would_choose(open_page, path, widget, view, query, order):
    page = open_page(path, view)
    rows = download(page)
    found = [row["id"] for row in rows]
    wanted = widget.table.query(query)
    assert len(wanted) and sorted(found) == sorted(wanted.index)
    assert status(page) == f"{len(wanted)} of {N} images"
    assert parse_qs(view_of(page)) == parse_qs(view)
    values = wanted.loc[found].reset_index()[order.lstrip("-") or "disagreement"]
    down = order.startswith("-") or not order
    assert (values.diff().dropna() <= 1e-6).all() if down else values.is_monotonic_increasing
    assert list(rows[0])[1:] == list(widget.table.columns)
    there = widget.table.loc[found[0]]
    for name in ("cell", "label", "predicted_a", "answer", "cue", "correct_b", "label_noise"):
        assert rows[0][name] == str(there[name])
    assert float(rows[0]["disagreement"]) == pytest.approx(there["disagreement"], abs=2e-6)


def test_filters_combine_into_chips_and_a_hash_that_can_be_shared(open_page, path):
    page = open_page(path)
    for name in ("^only VLM, tuned", "^fear, 30", "^cue: content", "^vision model says: awe"):
        button(page, name).click()
    page.get_by_label("VLM, tuned: confidence, least").fill("0.3")
    page.get_by_label("Words in what VLM, tuned wrote").fill("number")
    button(page, "^Gate: EmoVLM-KD: right").click()
    wait_for(page, "document.querySelectorAll('.chip').length === 7")
    chips = page.get_by_role("list", name="Filters that are on").get_by_role("button")
    words = "only VLM, tuned|label fear|VLM, tuned 30 to 100\u00a0% sure|vision model says awe|"
    words += "wrote \u201cnumber\u201d|gate right|cue: content"
    assert chips.all_inner_texts() == words.split("|")
    view = "cell=a&label=fear&conf_a=0.3..1&says_b=awe&words=number&gate=right&col.cue=content"
    assert view_of(page) == view and status(open_page(path, view)) == status(page)
    for left in range(6, -1, -1):
        chips.first.click()
        assert chips.count() == left
    assert status(page) == f"{N} images" and view_of(page) == ""


def test_what_a_notebook_chose_comes_in_its_order(open_page, widget, tmp_path):
    chosen = widget.table.query("cell == 'a'").sort_values("confidence_a")
    widget.show(chosen.index)
    page = open_page(widget.to_html(tmp_path / "page.html"))
    widget.show()
    assert [row["id"] for row in download(page)] == chosen.index.tolist()
    assert page.locator(".chip").inner_text() == f"chosen in the notebook: {len(chosen)} images"
    page.locator(".chip").click()
    assert status(page) == f"{N} images" and view_of(page) == ""


def test_both_figures_show_counts_shares_and_intervals(open_page, path, widget):
    a, b = list(widget._content.models.values())[:2]
    counted = four_way(a, b)
    page = open_page(path)
    areas = []
    for name, cell in {"both": "both", "a": "only_a", "b": "only_b", "neither": "neither"}.items():
        words, share = page.locator(f".cell.{name}").inner_text(), counted.shares[cell]
        low, high = wilson(getattr(counted, cell), counted.n)
        assert f"{100 * share:.1f}\u00a0% [{100 * low:.1f}, {100 * high:.1f}]" in words
        box = page.locator(f".area.{name}").bounding_box()
        areas.append(box["width"] * box["height"] / share)
    assert areas == pytest.approx([np.mean(areas)] * 4, rel=0.05)
    for row, label in zip(page.locator("button.dots").all(), MIKELS.labels, strict=True):
        inside = np.array(a.labels) == label
        for side, model in (("a", a), ("b", b)):
            left = row.locator(f".plot .mark.{side}").evaluate("mark => mark.style.left")
            assert float(left[:-1]) == pytest.approx(100 * model.correct[inside].mean(), abs=0.01)


def test_models_can_be_swapped_and_replaced(open_page, path):
    page = open_page(path, "cell=a&says_a=fear")
    n = status(page)
    button(page, "Swap the two models").click()
    assert parse_qs(view_of(page))["a"] == ["vision model"]
    assert parse_qs(view_of(page))["cell"] == ["b"] and status(page) == n
    for model in "AB":
        page.get_by_label(f"Model {model}").select_option("VLM, zero-shot")
        assert "VLM, zero-shot" in page.locator(".four-way").inner_text()


def test_a_picture_opens_with_everything_about_it(open_page, path, widget):
    page = open_page(path, "sort=id")
    tiles(page).nth(1).click()
    image = sorted(widget.table.index)[1]
    row, there = widget.table.index.get_loc(image), widget.table.loc[image]
    panel = page.get_by_role("dialog")
    picture = panel.get_by_alt_text(f"Picture {image}")
    assert picture.evaluate("img => img.decode().then(() => img.naturalWidth)") == 64
    for column, model in enumerate(list(widget._content.models.values())[:2], 1):
        cells = panel.locator("table").first.locator(f"tbody td:nth-of-type({column})")
        found = [float(text) for text in cells.all_inner_texts()]
        assert found == pytest.approx(100 * model.probabilities[row], abs=0.06)
    text, share = panel.inner_text(), 100 * there["gate_student_share"]
    for name in ("answer", "reason", "objects", "hue"):
        assert str(there[name]) in text
    assert f"head, distilled {share:.0f}\u00a0%, VLM, tuned {100 - share:.0f}\u00a0%" in text
    panel.locator("summary").first.click()
    assert image in text and "versions.torch" in panel.inner_text()


def test_everything_can_be_done_with_the_keyboard(open_page, path):
    page = open_page(path)
    seen, focus = set(), "document.activeElement.className + ' ' + "
    focus += "document.activeElement.parentNode.className"
    while "tile" not in seen and len(seen) < 200:
        page.keyboard.press("Tab")
        seen |= set(page.evaluate(focus).split())
    assert seen >= {"cell", "dots", "sort", "option", "tile"}
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    place = "+document.activeElement.parentNode.getAttribute('aria-posinset')"
    grid = "getComputedStyle(document.querySelector('.tiles')).gridTemplateColumns"
    columns = len(page.evaluate(grid).split())
    moves = {"ArrowRight": 2, "ArrowDown": 2 + columns, "ArrowLeft": 1 + columns, "ArrowUp": 1}
    for key, wanted in (moves | {"End": None, "Home": 1}).items():
        page.keyboard.press(key)
        assert page.evaluate(place) == wanted or (key == "End" and page.evaluate(place) >= 60)
    page.keyboard.press("Enter")
    for key, wanted in (("Shift", 1), ("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
        page.keyboard.press(key)
        assert page.locator(".position").inner_text() == f"{wanted} of {N}"
    page.keyboard.press("Escape")
    wait_for(page, f"!document.querySelector('dialog[open]') && {place} === 2")
    button(page, "^neither").focus()
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_a_screen_reader_finds_a_name_for_everything(open_page, path):
    page = open_page(path, "cell=a")
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    roles = {"button", "combobox", "spinbutton", "searchbox", "list", "dialog", "image"}

    def nameless():
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
        nodes = [node for node in tree["nodes"] if not node.get("ignored")]
        named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
        return [role for role, name in named if role in roles and not name.strip()]

    assert nameless() == [] and page.get_by_role("heading", level=1).count() == 1
    tiles(page).first.click()
    assert nameless() == []


SMALL = """() => [...document.querySelectorAll('.emx button')]
  .map(button => [button.className, button.getBoundingClientRect()])
  .filter(([name, box]) => box.width && (box.width < 24 || box.height < 24))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out_in_light_and_dark(open_page, path, width, scheme):
    page = open_page(path, "words=number", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.querySelector('.emx')).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 25, 30)"}[scheme]
    tiles(page).first.click()
    assert page.evaluate(SMALL) == []
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.locator(".detail-body").evaluate("body => body.scrollWidth <= body.clientWidth")


def test_20000_images_are_drawn_as_one_comes_to_them(open_page, tmp_path):
    n, rng = 20_000, np.random.default_rng(0)
    ids, labels = [f"{k:05d}.png" for k in range(n)], ["anger", "fear", "joy", "joy"] * (n // 4)
    known = (ids, ["test"] * n, labels, ("anger", "fear", "joy"))
    a, b = (Predictions(*known, rng.dirichlet([1, 1, 1], n)) for _ in "ab")
    widget = explore(a, b, {ids[0]: Image.new("RGB", (8, 8))})
    page = open_page(widget.to_html(tmp_path / "many.html", pictures="folder"))
    before = tiles(page).count()
    assert status(page) == "20,000 images" and before < 500
    page.evaluate("window.scrollTo(0, document.documentElement.scrollHeight)")
    wait_for(page, f"document.querySelectorAll('.tile').length > {before}")
    page.locator(".area.a").click()
    assert len(download(page)) == (widget.table["cell"] == "a").sum()


def test_hostile_text_is_shown_as_text(open_page, tmp_path):
    ids = [HOSTILE, "b.png", "c\u202egnp.png"]
    p = np.array([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    classes = ("<b>fear</b>", "javascript:alert(1)")
    known = (ids, ["test"] * 3, [classes[k] for k in (0, 1, 0)], classes)
    a = Predictions(*known, p, [SCRIPT, "=1+1", "@SUM(A1)"], provenance={"model": SCRIPT})
    b = Predictions(*known, p[::-1], provenance={"model": HOSTILE, "<i>": "<u>"})
    about = pd.DataFrame({HOSTILE: [SCRIPT, "&lt;", "=x"], "__proto__": ["<a>", "b", "c"]}, ids)
    reasons = {HOSTILE: "<svg onload=window.hacked=1>"}
    images = {image: Image.new("RGB", (8, 8)) for image in ids[:2]}
    widget = explore(a, b, images, b, metadata=about, reasons=reasons)
    page = open_page(widget.to_html(tmp_path / "<b>page.html"), f"open={quote(HOSTILE)}&sort=id")
    page.locator("dialog summary").nth(1).click()
    panel = page.get_by_role("dialog").inner_text()
    for text in (HOSTILE, SCRIPT, reasons[HOSTILE], "<b>fear</b>", "__proto__", "<u>"):
        assert text in panel
    page.keyboard.press("Escape")
    page.locator("summary", has_text="__proto__").click()
    button(page, "__proto__: <a>").click()
    assert status(page) == "1 of 3 images"
    button(page, "Clear all").click()
    assert page.locator("[onerror], [onload], .emx script, .emx b > *").count() == 0
    sources = page.locator("img").evaluate_all("all => all.map(img => img.src.slice(0, 11))")
    assert set(sources) == {"data:image/"} and page.title().startswith("</script>")
    assert [row["answer"] for row in download(page)] == [SCRIPT, "'=1+1", "'@SUM(A1)"]
    assert page.evaluate("window.hacked") is None


HERE = os.path.dirname(__file__)
CELLS = [
    f"import sys; sys.path[:0] = [{HERE!r}, {os.path.dirname(HERE)!r}]\n"
    "from test_explorer_browser import widget_of\nwidget = widget_of(240)\nwidget",
    "print('selected', len(widget.selection), set(widget.selection['cell']))",
    "widget.show(widget.table.query(\"label == 'awe'\").index)\nprint('shown', len(widget.selection))",
]


@pytest.fixture
def lab(tmp_path):
    """JupyterLab on loopback, with a home of its own: the URL of a notebook that shows the widget."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(metadata=kernel)
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", tmp_path / "lab.log"
    command = f"-m jupyterlab --no-browser --ip=127.0.0.1 --port={port} --allow-root"
    command += " --ServerApp.port_retries=0 --IdentityProvider.token=t"
    command = [sys.executable, *command.split(), f"--ServerApp.root_dir={tmp_path}"]
    own = os.environ | {"HOME": str(tmp_path)}
    with log.open("w") as file:
        process = subprocess.Popen(command, env=own, stdout=file, stderr=file)
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{url}/api?token=t", timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
    yield f"{url}/lab/tree/lesson.ipynb?token=t"
    process.terminate()
    process.wait(20)


def run_cell(page, number):
    cell = page.locator(".jp-CodeCell").nth(number)
    cell.locator(".jp-InputArea-editor").click()
    page.keyboard.press("Shift+Enter")
    return cell.locator(".jp-OutputArea-output")


def test_the_widget_works_inside_jupyterlab(browser, lab):
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(90_000)
    troubles = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(lab)
    page.get_by_text("| Idle").wait_for()
    run_cell(page, 0)
    page.wait_for_selector(".emx .status:has-text('240 images')")
    loaded = "[...document.querySelectorAll('.emx .tile img')].filter(img => img.naturalWidth)"
    wait_for(page, f"{loaded}.length > 2", 90)
    ground = "getComputedStyle(document.querySelector('.emx')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"  # JupyterLab's theme, not the system's

    page.locator(".emx .cell.a").click()
    n = int(page.locator(".emx .status").inner_text().split()[0])
    assert 0 < n < 240 and page.evaluate("location.hash") == ""
    time.sleep(0.5)  # what is clicked is on its way to the kernel
    run_cell(page, 1).get_by_text(f"selected {n} {{'a'}}").wait_for()

    # Arrow keys belong to the widget while the focus is in it, not to the notebook.
    tiles(page).first.focus()
    page.keyboard.press("ArrowRight")
    place = "document.activeElement.parentNode.getAttribute('aria-posinset')"
    assert page.evaluate(place) == "2"
    page.keyboard.press("Enter")
    wait_for(page, "document.querySelector('.emx dialog[open] .picture img')?.naturalWidth", 90)
    page.keyboard.press("Escape")
    assert page.locator(".emx .gallery").evaluate("node => node.scrollHeight > node.clientHeight")

    run_cell(page, 2).get_by_text("shown 30").wait_for()
    page.wait_for_selector(".emx .status:has-text('30 of 240 images')")
    assert troubles == []
    context.close()
