"""``python -m emokd_utils demo``: a page on this machine to try EmoVLM-KD on one's own images.

It loads what a run has trained and trains nothing. The page is served on 127.0.0.1 alone, asks no
other host for anything, and is made with gradio: ``pip install -e ".[demo]"``.
"""

import base64
import io
import os
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from ..emovlm_kd import Answer, EmoVLMKD
from ..errors import InputError
from ..figures.plots import class_colours, model_colours
from ..images import open_image
from ..profiles import project_root
from ..run.environment import asked_profile
from ..run.store import NotMadeError

if TYPE_CHECKING:
    import gradio

    from ..run.pipeline import Pipeline

HOST = "127.0.0.1"
MAX_UPLOAD = 20 * 2**20  # bytes
MAX_ASPECT = 200  # long side over short side; Qwen2-VL's processor refuses more
BALANCED = 0.05  # shares so close to one half count as equal

GROUPS = {
    (True, True): "Both right",
    (True, False): "Only the VLM right",
    (False, True): "Only the head right",
    (False, False): "Neither right",
}
"""Whether VLM and head are right -> the heading of such examples."""

LIMITS = {
    "tiny_vlm": "The built-in TinyVLM knows drawn scenes like the examples and nothing else: "
    "a photograph gets an answer too, but it means nothing."
}
"""Name of a VLM -> what its answers must not be taken for."""
LIMIT = (
    "An answer is about what an image evokes in those who labelled the data; "
    "it is not about what a person in the image feels."
)

_STYLE = Path(__file__).parent / "demo.css"
_SETTINGS = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
_NOTHING_YET = "The answer appears here."
_UPLOAD = f"""<section class="ekd" aria-label="Your image">
<h2>Your image</h2>
<p class="ekd-note">PNG, JPEG, WebP, BMP, GIF or TIFF, up to {MAX_UPLOAD // 2**20} MB. It stays on
this machine.</p>
</section>"""
_PICK = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-place]");
  if (!button) return;
  for (const one of element.querySelectorAll("button"))
    one.setAttribute("aria-pressed", one === button);
  trigger("click", { place: Number(button.dataset.place) });
});
"""
_UNPICK = """() => {
  for (const one of document.querySelectorAll(".ekd button[aria-pressed=true]"))
    one.setAttribute("aria-pressed", "false");
}"""
_REVEAL = """() => {
  const result = document.querySelector(".ekd-result");
  if (result.getBoundingClientRect().top > window.innerHeight - 120) result.scrollIntoView();
}"""


@dataclass(frozen=True, eq=False)
class Example:
    """A test image to try. id, label: as in the data set. group: one of GROUPS. about: its content
    in words, the id where the data set tells none."""

    id: str
    label: str
    group: str
    about: str
    image: Image.Image


def choose_examples(pipeline: "Pipeline", seed: int = 0, each: int = 2) -> list[Example]:
    """Test images from each group of GROUPS, ``each`` of them where there are as many.

    By the kept predictions; labels not yet shown come first, and no image whose label the data set
    tells to be noise.
    """
    dataset, vlm = pipeline.dataset, pipeline.tuned(seed)
    head = pipeline.head(seed).logits(pipeline.features()).argmax(1) == dataset.label_index
    right = dict(zip(vlm.ids, zip(vlm.correct.tolist(), head.tolist(), strict=True), strict=True))
    table = dataset.split("test").table
    if "label_noise" in table:
        table = table[~table["label_noise"].eq(True)]
    chosen, shown = [], Counter()
    for group, heading in GROUPS.items():
        inside = [image for image in table.index if right[image] == group]
        for _ in range(min(each, len(inside))):
            image = min(inside, key=lambda one: shown[table.at[one, "label"]])
            inside.remove(image)
            row = table.loc[image]
            about = row.get("caption")
            about = about if isinstance(about, str) and about.strip() else image
            shown[row["label"]] += 1
            chosen.append(Example(image, row["label"], heading, about, dataset.open(image)))
    return chosen


# ------------------------------------------------------------------------------------ what is shown


def answer_html(
    answer: Answer,
    *,
    answer_ms: float,
    reason: str | None = None,
    reason_ms: float | None = None,
    picture: Image.Image | None = None,
    name: str = "",
    about: str = "",
    label: str = "",
) -> str:
    """What the page shows of an answer, as HTML in which every text is escaped.

    reason: the VLM's, None while it is being written. answer_ms, reason_ms: the time that each
    took. picture, name, about: the image, its name and its content in words. label: where known,
    it is shown and each side is marked right or wrong.
    """
    sides = {
        "EmoVLM-KD": answer.probabilities,
        "VLM": answer.vlm,
        "Head (student)": answer.head,
    }
    vlm, head = (max(side, key=side.__getitem__) for side in (answer.vlm, answer.head))
    says = dict(zip(sides, (answer.emotion, vlm, head), strict=True))
    colours = class_colours(tuple(answer.probabilities))

    def mark(said: str) -> str:
        word = "right" if said == label else "wrong"
        return f'<span class="ekd-{word}">{word}</span>' if label else ""

    shown = ""
    if picture is not None:
        shown = f'<img src="{_data_uri(picture, 480)}" alt="{escape(about or name)}">'
    known = f"Its label is <strong>{escape(label)}</strong>." if label else ""
    heads = "".join(
        f'<th scope="col" role="columnheader"><span class="ekd-side">{side}</span> '
        f'<span class="ekd-said" style="--c: {colours[said]}">{escape(said)}</span> '
        f"{mark(said)}</th>"
        for side, said in says.items()
    )
    rows = "".join(
        f'<tr role="row" style="--c: {colour}"><th scope="row" role="rowheader">'
        f"{escape(emotion)}</th>"
        + "".join(_cell(sides[side][emotion], said == emotion) for side, said in says.items())
        + "</tr>"
        for emotion, colour in colours.items()
    )
    wait = '<p class="ekd-note">The VLM is writing it.</p>'
    why = wait if reason is None else f"<blockquote>{escape(reason or '(nothing)')}</blockquote>"
    took = f"The answer took {answer_ms:,.0f} ms"
    took += "." if reason_ms is None else f", the reason {reason_ms:,.0f} ms."
    return f"""<section class="ekd ekd-result" aria-label="Answer">
<div class="ekd-top">
<p class="ekd-final" role="status" style="--c: {colours[answer.emotion]}"><span>EmoVLM-KD says</span>
<strong>{escape(answer.emotion)}</strong> {_number(answer.probabilities[answer.emotion])}</p>
<p class="ekd-image"><span class="ekd-name">{escape(name)}</span> {known}</p>
{shown}
</div>
<h3>What each of them says</h3>
<table role="table">
<caption>Probability of each emotion; every bar runs from 0 to 100&nbsp;%.</caption>
<thead role="rowgroup"><tr role="row"><td></td>{heads}</tr></thead>
<tbody role="rowgroup">{rows}</tbody>
</table>
<div class="ekd-parts">
<div><h3>What the gate weighed</h3>{_gate(answer, vlm, head)}</div>
<div><h3>The VLM's reason, in its own words</h3>{why}
<p class="ekd-note">Asked for after the answer; the gate does not read it.</p></div>
</div>
<p class="ekd-note">{took}</p>
</section>"""


def gate_sentence(weights: tuple[float, float]) -> str:
    """The shares of head and VLM (in 0..1, summing to 1) as one sentence."""
    head, vlm = weights
    if abs(vlm - head) <= 2 * BALANCED:
        return f"The gate weighed both about equally ({_percent(vlm)} the VLM)."
    side, share = ("VLM", vlm) if vlm > head else ("head", head)
    return f"The gate leaned on the {side} ({_percent(share)})."


def message_html(text: str, error: bool = False) -> str:
    """A sentence in the place of an answer, escaped."""
    kind = " ekd-error" if error else ""
    return f"""<section class="ekd ekd-result" aria-label="Answer">
<div class="ekd-top"><p class="ekd-message{kind}" role="{"alert" if error else "status"}">\
{escape(text)}</p></div>
</section>"""


def _gate(answer: Answer, vlm: str, head: str) -> str:
    """vlm, head: the emotion that each says."""
    colours, (head_share, vlm_share) = model_colours(("VLM", "head")), answer.weights
    if vlm == head == answer.emotion:
        outcome = f"VLM and head both say {vlm}."
    elif vlm == head:
        outcome = f"VLM and head both say {vlm}, but what came out is {answer.emotion}."
    elif answer.emotion == vlm:
        outcome = f"The answer is the VLM's {vlm}, not the head's {head}."
    elif answer.emotion == head:
        outcome = f"The answer is the head's {head}, not the VLM's {vlm}."
    else:
        outcome = f"The VLM says {vlm}, the head {head}; what came out is {answer.emotion}."
    return f"""<p>{escape(f"{gate_sentence(answer.weights)} {outcome}")}</p>
<div class="ekd-shares" aria-hidden="true">\
<span style="--w: {vlm_share}; --c: {colours["VLM"]}"></span>\
<span style="--w: {head_share}; --c: {colours["head"]}"></span></div>
<p class="ekd-ends"><span>VLM {_number(vlm_share)}</span>
<span>Head {_number(head_share)}</span></p>"""


def _cell(value: float, answer: bool) -> str:
    kind = ' class="ekd-answer"' * answer
    bar = f'<span class="ekd-bar" aria-hidden="true" style="--p: {value}"></span>'
    return f'<td role="cell"{kind}><div>{_number(value)}{bar}</div></td>'


def _number(share: float) -> str:
    return f'<data value="{share}">{escape(_percent(share))}</data>'


def _percent(share: float) -> str:
    if 0 < share < 0.005:
        return "<\u202f1\u00a0%"
    if 0.995 <= share < 1:
        return ">\u202f99\u00a0%"
    return f"{100 * share:.0f}\u00a0%"


def _data_uri(image: Image.Image, side: int) -> str:
    """The image as WebP, its longer side at most ``side`` pixels."""
    if max(image.size) > side:
        image = ImageOps.contain(image, (side, side))
    written = io.BytesIO()
    image.save(written, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def _header(vlm: str) -> str:
    return f"""<style>{_STYLE.read_text("utf-8")}</style>
<header class="ekd ekd-header">
<h1>EmoVLM-KD</h1>
<p>Which emotion does an image evoke? A vision-language model (VLM) and a small head on what it sees
each give an answer, and a gate makes one of the two.</p>
<p class="ekd-limit">{escape(LIMITS.get(vlm, LIMIT))}</p>
</header>"""


def _examples_html(examples: Sequence[Example]) -> str:
    groups = []
    for heading in GROUPS.values():
        buttons = "".join(
            f'<button type="button" data-place="{place}" aria-pressed="false">'
            f'<img src="{_data_uri(one.image, 160)}" alt="{escape(one.about)}"></button>'
            for place, one in enumerate(examples)
            if one.group == heading
        )
        if buttons:
            groups.append(
                f'<div role="group" aria-label="{heading}"><h3>{heading}</h3>{buttons}</div>'
            )
    if not groups:
        return ""
    return f"""<section class="ekd" aria-label="Examples">
<h2>Or take an example</h2>
<p class="ekd-note">Test images; nothing was trained on them.</p>
<div class="ekd-examples">{"".join(groups)}</div>
</section>"""


# ---------------------------------------------------------------------------------------- the page


def build(emovlm_kd: EmoVLMKD, examples: Sequence[Example] = ()) -> "gradio.Blocks":
    """The page, not yet served; `launch` does that.

    One image at a time passes the model. Raises InputError where gradio is not installed.
    """
    gr = _gradio()

    def respond(image: Image.Image, **about: str) -> Iterator[str]:
        start = time.perf_counter()
        answer = emovlm_kd.answer([image])[0]
        answered = time.perf_counter()
        shown = about | {"picture": image, "answer_ms": 1e3 * (answered - start)}
        yield answer_html(answer, **shown)
        answered = time.perf_counter()
        reason = emovlm_kd.vlm.reasons([image])[0]
        reason_ms = 1e3 * (time.perf_counter() - answered)
        yield answer_html(answer, **shown, reason=reason, reason_ms=reason_ms)

    def on_upload(path: str) -> Iterator[tuple]:
        try:
            image = open_upload(path)
        except InputError as error:
            yield None, message_html(str(error), error=True)
            return
        cleared = None
        for html in respond(image, name=Path(path).name):
            yield cleared, html
            cleared = gr.skip()

    def on_example(event: gr.EventData) -> Iterator[str]:
        one = examples[event.place]
        yield from respond(one.image, name=one.id, about=one.about, label=one.label)

    with gr.Blocks(title="EmoVLM-KD", analytics_enabled=False) as blocks:
        gr.HTML(_header(emovlm_kd.vlm.name), js_on_load=None, apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=4, min_width=280):
                gr.HTML(_UPLOAD, js_on_load=None, apply_default_css=False)
                upload = gr.File(label="Your image", show_label=False, height=150)
                offered = gr.HTML(
                    _examples_html(examples), js_on_load=_PICK, apply_default_css=False
                )
            with gr.Column(scale=7, min_width=300):
                result = gr.HTML(
                    message_html(_NOTHING_YET), js_on_load=None, apply_default_css=False
                )
        queued = {"concurrency_limit": 1, "concurrency_id": "model", "trigger_mode": "multiple"}
        queued |= {"api_visibility": "private", "show_progress": "hidden"}
        upload.upload(on_upload, upload, [upload, result], **queued).then(None, js=_REVEAL)
        upload.upload(None, js=_UNPICK)
        offered.click(on_example, None, result, **queued).then(None, js=_REVEAL)
    return blocks


def open_upload(path: str | os.PathLike) -> Image.Image:
    """An uploaded image as `datasets.open_image` gives it.

    Raises InputError, naming the file without its folder, for what is no usable image, or so
    narrow that the VLM cannot take it.
    """
    path = Path(path)
    try:
        image = open_image(path)
    except InputError as error:
        raise InputError(str(error).replace(str(path), path.name)) from error
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise InputError(
            f"{path.name} is {image.width} x {image.height} pixels: give an image at most "
            f"{MAX_ASPECT} times as long as it is wide"
        )
    return image


def launch(blocks: "gradio.Blocks", port: int | None = None, open_browser: bool = False) -> str:
    """Serve the page in the background on 127.0.0.1 alone, and return its address.

    port: None takes the first free one from 7860. ``blocks.close()`` ends it. Raises InputError
    where no such port is free.
    """
    gr = _gradio()
    from starlette.middleware import Middleware

    for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own server whether it is up
        if HOST not in (hosts := os.environ.get(name, "")):
            os.environ[name] = f"{hosts},{HOST}".removeprefix(",")
    try:
        return blocks.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=open_browser,
            inline=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            root_path="",
            app_kwargs={"middleware": [Middleware(_OwnContentOnly)]},
            theme=_theme(gr),
        )[1]
    except OSError as error:
        if "empty port" not in str(error):
            raise
        taken = "every port from 7860 on" if port is None else f"port {port}"
        raise InputError(f"{taken} is taken: choose another with --port") from error


class _OwnContentOnly:
    """ASGI middleware: no page may load anything from another host, whatever gradio refers to."""

    POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_policy(message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", self.POLICY)]
                message = message | {"headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_policy)


def _theme(gr):
    """The fonts of the system, and the grounds of demo.css."""
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return theme.set(
        body_background_fill="#ffffff",
        body_background_fill_dark="#15191e",
        block_background_fill="#f5f6f8",
        block_background_fill_dark="#1d2228",
        border_color_primary="#b6bec8",
        border_color_primary_dark="#56606c",
    )


def _gradio():
    """The module gradio, set to tell nobody of its use."""
    os.environ.update(_SETTINGS)
    try:
        import gradio
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError('gradio is not installed: `pip install -e ".[demo]"`') from error
    return gradio


def load(pipeline: "Pipeline", command: str, seed: int = 0, kind: str | None = None) -> EmoVLMKD:
    """EmoVLM-KD of a pipeline that makes nothing.

    Raises InputError that names the first part that is not there and ``command``, which makes it.
    """
    parts = {
        "tuned VLM": lambda: pipeline.tuned_vlm(seed),
        "head": lambda: pipeline.head(seed),
        "gate": lambda: pipeline.gate(seed, kind),
    }
    for part, get in parts.items():
        try:
            get()
        except NotMadeError as error:
            raise InputError(
                f"{pipeline.folder} holds no {part} of seed {seed} for these settings: "
                f"`{command}` makes it"
            ) from error
    return EmoVLMKD.from_pipeline(pipeline, seed, kind)


def main(args) -> int:
    """The command ``demo``: load what a run has trained and serve the page until Ctrl-C."""
    from ..run.pipeline import Pipeline

    _gradio()
    profile = asked_profile(args)
    if args.gate and args.gate not in profile.gates:
        raise InputError(
            f"there is no gate {args.gate!r}: choose one of {', '.join(profile.gates)}"
        )
    pipeline = Pipeline(
        profile, args.data, args.runs, skip_bad=args.skip_bad, progress=False, make=False
    )
    emovlm_kd = load(pipeline, _run_command(args), args.seed, args.gate)
    examples = choose_examples(pipeline, args.seed)
    with tempfile.TemporaryDirectory(prefix="emokd-demo-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        blocks = build(emovlm_kd, examples)
        url = launch(blocks, args.port, args.open)
        print(f"EmoVLM-KD answers at {url} (Ctrl-C ends it)", flush=True)
        try:
            while blocks.is_running:
                time.sleep(0.5)
        finally:
            blocks.close(verbose=False)
    return 0


def _run_command(args) -> str:
    """The command that trains what the arguments of ``demo`` ask for."""
    words = ["python", "-m", "emokd_utils", "run"]
    given = {"--profile": args.profile, "--vlm": args.vlm or None, "--vision": args.vision or None}
    given |= {"--data": args.data, "--runs": args.runs, "--seed": args.seed or None}
    usual = {
        "--profile": os.environ.get("EMOKD_PROFILE") or "mini",
        "--runs": project_root() / "runs",
    }
    for option, value in given.items():
        if value is not None and value != usual.get(option):
            words += [option, str(value)]
    for text in args.settings:
        words += ["--set", text]
    return shlex.join(words + ["--skip-bad"] * args.skip_bad)
