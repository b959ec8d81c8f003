"""The demo in a real browser: the page of a model with random weights, served on this machine.

They need a Chromium of the system on PATH (Debian: apt install chromium) and are skipped without.
EMOKD_SCREENSHOTS=FOLDER keeps pictures of the page, for a look at them.
"""

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from PIL import Image

from emokd_utils.cli import demo
from emokd_utils.emotions import MIKELS
from emokd_utils.images import open_image
from emokd_utils.profiles import project_root
from emokd_utils.run.store import NotMadeError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio"),  # of pandas, in its queue
]

HOSTILE = "<img src=x onerror=window.hacked='name'>${window.hacked=1}.png"
SCRIPT = "</script><script>window.hacked='reason'</script>${window.hacked=2}{{value}}"
LIMIT = 300_000  # bytes of an upload, in these tests


class Model:
    """An EmoVLM-KD whose VLM gives hostile reasons, and that notes how many use it at a time."""

    def __init__(self, real):
        self.real, self.running, self.most = real, 0, 0
        self.lock = threading.Lock()
        self.vlm = SimpleNamespace(name="tiny_vlm", reasons=self.reasons)

    def answer(self, images):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.05)
        found = self.real.answer(images)
        with self.lock:
            self.running -= 1
        return found

    def reasons(self, images):
        return [SCRIPT] * len(images)


@pytest.fixture(scope="module")
def examples(images):
    groups = list(demo.GROUPS.values())
    return [
        demo.Example(f"test/awe/{k}.png", "awe", groups[k % 4], f"a drawn scene, {k}", image)
        for k, image in enumerate(images)
    ]


@pytest.fixture(scope="module")
def served(browser, tiny_emovlm_kd, examples, tmp_path_factory):
    """A model and the address of its page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        patch.setattr(demo, "MAX_UPLOAD", LIMIT)
        model = Model(tiny_emovlm_kd)
        blocks = demo.build(model, examples)
        yield model, demo.launch(blocks)
        blocks.close(verbose=False)


@pytest.fixture
def open_page(browser, served, capfd):
    """Open the page; a request to another host, an error in page or terminal fails the test."""
    contexts, troubles = [], []

    def open_it(width=1280, height=900, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
        page.on("dialog", lambda dialog: troubles.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda request: foreign(request.url) and troubles.append(request.url))
        page.goto(served[1])
        page.wait_for_selector(".ekd-result")
        return page

    yield open_it
    for context in contexts:
        assert context.pages[0].evaluate("window.hacked") is None
        context.close()
    assert troubles == []
    assert "Traceback" not in "".join(capfd.readouterr())


def foreign(url):
    parts = urlsplit(url)
    return parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1"


def keep(page, name):
    """A screenshot, where they are wanted."""
    if folder := os.environ.get("EMOKD_SCREENSHOTS"):
        page.screenshot(path=os.path.join(folder, f"{name}.png"), full_page=True)


def pick(page, place=0):
    page.locator(f"button[data-place='{place}']").click()
    page.wait_for_selector(".ekd-result blockquote")


def upload(page, name, content):
    page.set_input_files(
        "input[type=file]", {"name": name, "mimeType": "image/png", "buffer": content}
    )


def encoded(image, **options):
    written = io.BytesIO()
    image.save(written, options.pop("format", "PNG"), **options)
    return written.getvalue()


def shown(page):
    """label -> the three probabilities in its row."""
    rows = page.get_by_role("row").filter(has=page.get_by_role("rowheader"))
    return {
        row.get_by_role("rowheader").inner_text(): [
            float(one.get_attribute("value")) for one in row.locator("data").all()
        ]
        for row in rows.all()
    }


def assert_same(page, answer):
    rows = shown(page)
    assert list(rows) == list(MIKELS.labels)
    for name, row in rows.items():
        wanted = [side[name] for side in (answer.probabilities, answer.vlm, answer.head)]
        assert row == pytest.approx(wanted, abs=1e-5)
    assert page.locator(".ekd-final strong").inner_text() == answer.emotion
    ends = [float(one.get_attribute("value")) for one in page.locator(".ekd-ends data").all()]
    assert ends == pytest.approx(answer.weights[::-1], abs=1e-4)


def test_an_example_is_answered_as_the_model_answers_it(open_page, tiny_emovlm_kd, examples):
    page = open_page()
    assert page.title() == "EmoVLM-KD"
    for place in (3, 1):
        pick(page, place)
        page.get_by_text(f"test/awe/{place}.png").wait_for()
        assert_same(page, tiny_emovlm_kd.answer([examples[place].image])[0])
        pressed = page.locator("button[aria-pressed=true]")
        assert pressed.get_attribute("data-place") == str(place)
    assert page.locator("blockquote").inner_text() == SCRIPT
    assert "Its label is awe." in page.locator(".ekd-image").inner_text()
    assert page.locator("thead .ekd-right, thead .ekd-wrong").count() == 3
    assert re.search(r"answer took \d+ ms, the reason \d+ ms", page.locator("body").inner_text())
    keep(page, "demo-example")


def test_an_upload_is_answered_and_its_name_stays_a_text(open_page, tiny_emovlm_kd, images):
    page = open_page()
    pick(page)
    upload(page, HOSTILE, encoded(images[1]))
    page.locator(".ekd-name").filter(has_text="onerror").wait_for()
    page.wait_for_selector("blockquote")
    assert_same(page, tiny_emovlm_kd.answer([images[1]])[0])
    assert page.locator(".ekd-result img").count() == 1
    assert page.locator("button[aria-pressed=true]").count() == 0
    assert "label" not in page.locator(".ekd-image").inner_text()


def test_uploads_are_decoded_by_the_library(open_page, tiny_emovlm_kd, tmp_path):
    page = open_page()
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.linear_gradient("L").resize((90, 30))
    files = {
        "turned.jpg": encoded(wide.convert("CMYK"), format="JPEG", exif=exif),
        "palette.png": encoded(wide.convert("P")),
        "deep.tiff": encoded(wide.convert("I;16"), format="TIFF"),
        "moving.gif": encoded(
            wide, format="GIF", save_all=True, append_images=[wide.transpose(Image.ROTATE_180)]
        ),
        "no suffix": encoded(wide),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        upload(page, name, content)
        page.locator(".ekd-name").get_by_text(name, exact=True).wait_for()
        page.wait_for_selector("blockquote")
        image = open_image(tmp_path / name)
        assert_same(page, tiny_emovlm_kd.answer([image])[0])
        size = page.locator(".ekd-result img").evaluate("x => [x.naturalWidth, x.naturalHeight]")
        assert tuple(size) == image.size


def test_what_is_no_image_gives_one_sentence_and_the_page_goes_on(open_page, images):
    page = open_page()
    bad = {
        "notes.png": (b"dear diary", "not an image but text"),
        "empty.png": (b"", "no bytes"),
        "cut.png": (encoded(Image.effect_noise((200, 200), 90))[:-900], "breaks off"),
        "bomb.png": (encoded(Image.new("1", (20_000, 20_000))), "too much memory"),
        "thin.png": (encoded(Image.new("RGB", (900, 2))), "900 x 2 pixels"),
        "drawing.svg": (b"<svg onload='window.hacked=3'/>", "SVG"),
    }
    for name, (content, words) in bad.items():
        upload(page, name, content)
        page.get_by_role("alert").filter(has_text=name).wait_for()
        text = page.get_by_role("alert").inner_text()
        assert words in text and "/" not in text and "Traceback" not in text
        assert page.get_by_role("table").count() == 0
    keep(page, "demo-error")
    upload(page, "good.png", encoded(images[0]))
    page.wait_for_selector("blockquote")
    assert page.get_by_role("alert").count() == 0


def test_a_file_that_is_too_large_is_refused_and_the_page_goes_on(open_page, images):
    page = open_page()
    upload(page, "large.png", bytes(LIMIT + 1))
    page.get_by_text(re.compile("exceed the maximum allowed size")).wait_for()
    keep(page, "demo-too-large")
    upload(page, "good.png", encoded(images[0]))
    page.wait_for_selector("blockquote")


def test_one_image_at_a_time_passes_the_model(open_page, served):
    pages = [open_page() for _ in range(3)]
    for page in pages:
        for place in (0, 1, 2):
            page.locator(f"button[data-place='{place}']").click(no_wait_after=True)
    for page in pages:
        page.get_by_text("test/awe/2.png").wait_for()
    assert served[0].most == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_everything_is_legible_and_in_the_picture(open_page, width, scheme):
    page = open_page(width, 780, scheme)
    pick(page, 2)
    page.wait_for_function(
        "document.querySelector('.ekd-result').getBoundingClientRect().top < innerHeight - 100"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = """[...document.querySelectorAll('.ekd *')].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && (box.left < 0 || box.right > innerWidth);
    }).length"""
    assert page.evaluate(outside) == 0
    low = page.evaluate(CONTRAST)
    assert low == []
    bars = page.locator(".ekd-bar")
    widths = {round(bars.nth(k).bounding_box()["width"], 1) for k in range(bars.count())}
    assert bars.count() == 24 and max(widths) - min(widths) < 1, "one scale for all bars"
    filled = "x => parseFloat(getComputedStyle(x, '::before').width) / x.clientWidth"
    values = [value for row in shown(page).values() for value in row]
    parts = [bars.nth(k).evaluate(filled) for k in range(24)]
    assert parts == pytest.approx(values, abs=0.02)
    keep(page, f"demo-{scheme}-{width}")


CONTRAST = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const low = [];
  for (const one of document.querySelectorAll(".ekd *")) {
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const ink = light(getComputedStyle(one).color);
    const contrast = Math.max(ink, ground) / Math.min(ink, ground);
    if (one.tagName !== "STYLE" && contrast < 4.5) low.push([one.className, contrast]);
  }
  return low;
}"""


def test_it_is_used_by_keyboard_and_read_aloud(open_page, examples):
    page = open_page()
    for name in ("EmoVLM-KD", "Your image", "Or take an example"):
        assert page.get_by_role("heading", name=name, exact=True).count() == 1
    assert page.get_by_role("button", name=re.compile("upload", re.IGNORECASE)).count() == 1
    result = page.get_by_role("region", name="Answer")
    assert result.get_by_role("status").inner_text() == "The answer appears here."
    first = page.get_by_role("group", name="Both right").get_by_role("button").first
    assert first.get_by_role("img").get_attribute("alt") == examples[0].about
    first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("blockquote")
    assert result.get_by_role("status").inner_text().startswith("EmoVLM-KD says")
    place = page.locator("button[aria-pressed=true]").get_attribute("data-place")
    assert result.get_by_role("img").get_attribute("alt") == examples[int(place)].about
    page.set_viewport_size({"width": 360, "height": 780})
    table = result.get_by_role("table")
    assert table.get_by_role("columnheader").count() == 3
    assert table.get_by_role("rowheader").count() == 8
    assert table.get_by_role("cell").count() >= 24


def test_another_host_is_out_of_reach_of_the_page(browser, served):
    page = browser.new_page()
    page.goto(served[1])
    page.wait_for_selector(".ekd-result")
    refused = page.evaluate(
        """() => new Promise((done) => {
            document.addEventListener("securitypolicyviolation", (e) => done(e.blockedURI));
            document.body.append(Object.assign(new Image(), { src: "http://192.0.2.1/x.png" }));
            setTimeout(() => done("nothing was refused"), 5000);
        })"""
    )
    page.close()
    assert refused == "http://192.0.2.1/x.png"


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_ctrl_c_ends_the_command_and_leaves_nothing(tmp_path):
    code = """
import sys
from types import SimpleNamespace
from emokd_utils.cli import commands, demo
vlm = SimpleNamespace(name="tiny_vlm")
demo.load = lambda *args: SimpleNamespace(vlm=vlm)
demo.choose_examples = lambda *args: []
sys.exit(commands.main(["demo"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project_root(),
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert re.match(
            r"EmoVLM-KD answers at http://127\.0\.0\.1:\d+/ ", process.stdout.readline()
        )
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == "" and "Traceback" not in error
    assert error.splitlines()[-1].startswith("emokd_utils: interrupted")
    assert list(tmp_path.glob("emokd-demo-*")) == []


def test_the_examples_of_the_projects_run_are_what_their_headings_say():
    from emokd_utils.run.pipeline import Pipeline

    pipeline = Pipeline(progress=False, say=lambda line: None, make=False)
    try:
        model = demo.load(pipeline, "")
    except (demo.InputError, NotMadeError) as error:
        pytest.skip(f"nothing to look at: {error}")
    examples = demo.choose_examples(pipeline)
    answers = model.answer([one.image for one in examples])
    assert len(examples) == 8
    for one, answer in zip(examples, answers, strict=True):
        vlm, head = (max(side, key=side.get) for side in (answer.vlm, answer.head))
        assert demo.GROUPS[vlm == one.label, head == one.label] == one.group
        assert pipeline.dataset.table.at[one.id, "split"] == "test"
