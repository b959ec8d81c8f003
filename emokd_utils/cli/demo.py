"""``python -m emokd_utils demo``: a page to try what a run has trained on one's own images.

It is made with gradio, is served on 127.0.0.1 alone and asks no other host for anything."""

import contextlib
import importlib
import os
import tempfile
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from ..emovlm_kd import EmoVLMKD
from ..errors import InputError
from ..images import open_image
from ..run.run import Run
from ..run.store import NotMadeError

HOST = "127.0.0.1"

ABOUT = """# EmoVLM-KD
Which emotion does an image evoke in those who labelled the data (not: what does a person in it
feel)? A VLM and a small head on what it sees each give an answer, and a gate makes one of the two."""
TINY_VLM = " The built-in TinyVLM knows drawn scenes: for a photograph its answer means nothing."
TEST_IMAGES = "Or take a test image; nothing was trained on them"
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"


def build(emovlm_kd: EmoVLMKD, examples: Sequence[tuple[Image.Image, str]]):
    """The page as gradio.Blocks, for `launch` to serve. examples: images with captions."""
    gr = _gradio()

    def shown_of(image: Image.Image) -> list:
        answer = emovlm_kd.answer([image])[0]
        weights = dict(zip(("head", "VLM"), answer.weights, strict=True))
        # For `outputs` below: the upload box is free again, and there is no reason yet.
        return [None, image, image, answer.probabilities, answer.vlm, answer.head, weights, None]

    def on_upload(path: str) -> list:
        try:
            return shown_of(open_image(path))
        except ValueError as error:  # of open_image, and of processors for an image far too narrow
            gr.Warning(escape(str(error).replace(path, Path(path).name)), duration=None)
            return [None] * 8

    def on_example(event: gr.SelectData) -> list:
        return shown_of(examples[event.index][0])

    def on_ask(image: Image.Image | None) -> str:
        return emovlm_kd.vlm.reasons([image])[0] if image else "Give an image first."

    with gr.Blocks(title="EmoVLM-KD", analytics_enabled=False) as blocks:
        gr.Markdown(ABOUT + TINY_VLM * (emovlm_kd.vlm.name == "tiny_vlm"))
        kept = gr.State()
        with gr.Row():
            with gr.Column():
                upload = gr.File(label="Your image (it stays on this machine)", height=130)
                look = {"label": TEST_IMAGES, "allow_preview": False, "interactive": False}
                gallery = gr.Gallery(list(examples), columns=4, buttons=[], **look)
                shown = gr.Image(label="What is answered", interactive=False, buttons=[])
            with gr.Column():
                final = gr.Label(label="EmoVLM-KD says")
                with gr.Row():
                    vlm, head = gr.Label(label="VLM"), gr.Label(label="Head (student)")
                weights = gr.Label(label="What the gate weighed", show_heading=False)
                ask = gr.Button("Ask the VLM for its reason")
                reason = gr.Textbox(label="The VLM's reason; the gate does not read it")
        queued = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
        outputs = [upload, kept, shown, final, vlm, head, weights, reason]
        upload.upload(on_upload, upload, outputs, **queued)
        gallery.select(on_example, None, outputs, **queued)
        ask.click(on_ask, kept, reason, **queued)
    return blocks


def launch(blocks, port: int | None = None) -> str:
    """Serve the page in the background until ``blocks.close()``; its address. port: None takes the
    first free one from 7860. Raises InputError where it is taken."""
    gr = _gradio()
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware

    async def own_content_only(request, call_next):  # whatever gradio refers to
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        return response

    for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own server whether it is up
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))
    options = {"server_name": HOST, "server_port": port, "share": False}
    options |= {"quiet": True, "inline": False, "prevent_thread_lock": True, "footer_links": []}
    options["theme"] = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    app = {"middleware": [Middleware(BaseHTTPMiddleware, dispatch=own_content_only)]}
    try:
        return blocks.launch(**options, app_kwargs=app, max_file_size="20mb")[1]
    except OSError as error:
        taken = f"port {port}" if port else "every port from 7860 on"
        raise InputError(f"{taken} is taken: choose another with --port") from error


def _gradio():
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    try:
        return importlib.import_module("gradio")
    except ModuleNotFoundError as error:
        raise InputError('gradio is not installed: `pip install -e ".[demo]"`') from error


def demo(run: Run, seed: int, port: int | None) -> None:
    """The command ``demo``: load what a run has trained and serve the page until Ctrl-C."""
    _gradio()
    try:
        parts = run.tuned_vlm(seed), run.head(seed), run.gate(seed)
    except NotMadeError as error:
        holds = f"{run.folder} holds no trained EmoVLM-KD of seed {seed} for these settings"
        raise InputError(f"{holds}: `run` with the same options makes it") from error
    data = run.dataset
    labels = data.split("test").table["label"].drop_duplicates()[:8]
    examples = [(data.open(image), f"labelled {name}") for image, name in labels.items()]
    with tempfile.TemporaryDirectory(prefix="emokd-demo-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        blocks = build(EmoVLMKD(*parts, data.label_set), examples)
        print(f"EmoVLM-KD answers at {launch(blocks, port)} (Ctrl-C ends it)", flush=True)
        with contextlib.closing(blocks):
            while blocks.is_running:
                time.sleep(0.5)
