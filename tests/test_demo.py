"""The demo: a page that answers as the model does, reaches no other host and names what is missing."""

import io
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from types import SimpleNamespace

import pytest
from kept_run import folder_run

from emokd_utils.cli import commands, demo
from emokd_utils.errors import InputError
from emokd_utils.profiles import project_root

SCRIPT = "</script><script>window.hacked=1</script> <b>${window.hacked=2}"
HOSTILE = "<img src=x onerror=window.hacked=3>.png"


def test_without_a_run_the_command_says_in_one_sentence_what_makes_it(tmp_path, capsys):
    run = folder_run(tmp_path)
    asked = ["--data", str(run.root), "--runs", str(tmp_path / "runs"), "--seed", "2"]
    assert commands.main(["demo", *asked]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "of seed 2" in error and "same options makes it" in error


def test_a_missing_gradio_is_told_before_anything_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert commands.main(["demo", "--runs", str(tmp_path)]) == 2
    told = 'emokd_utils: gradio is not installed: `pip install -e ".[demo]"`\n'
    assert capsys.readouterr().err == told
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_served_on_the_loopback_alone_and_asks_nobody_else(monkeypatch, capfd):
    asked, look_up = [], socket.getaddrinfo
    noted = lambda host, *more, **k: asked.append(host) or look_up(host, *more, **k)  # noqa: E731
    monkeypatch.setattr(socket, "getaddrinfo", noted)
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    model = SimpleNamespace(vlm=SimpleNamespace(name="tiny_vlm"))
    blocks = demo.build(model, [])
    try:
        port = int(demo.launch(blocks).removeprefix("http://127.0.0.1:").rstrip("/"))
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), timeout=2).close()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{port}/") as answered:
            policy = answered.headers["Content-Security-Policy"]
            assert "knows drawn scenes" in answered.read().decode()
        assert policy.startswith("default-src 'self'") and "http" not in policy
        with pytest.raises(InputError, match=f"^port {port} is taken: choose another"):
            demo.launch(demo.build(model, []), port)
    finally:
        blocks.close(verbose=False)
    assert set(asked) <= {"127.0.0.1", "127.0.0.2", "localhost"}
    assert not blocks.analytics_enabled and blocks.share_url is None
    output = capfd.readouterr()
    assert output.out == "" and "Traceback" not in output.err


@pytest.fixture
def page(browser, tiny_emovlm_kd, images, tmp_path, monkeypatch):
    """The page of a model with random weights whose reasons are hostile; a request to another host
    or an error in the page fails the test."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    vlm = SimpleNamespace(name="random", reasons=lambda images: [SCRIPT])
    model = SimpleNamespace(vlm=vlm, answer=tiny_emovlm_kd.answer)
    blocks = demo.build(model, [(image, "labelled awe") for image in images])
    page, troubles = browser.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    own = ("data:", "blob:", f"http://{demo.HOST}:")
    page.on("request", lambda r: r.url.startswith(own) or troubles.append(r.url))
    page.goto(demo.launch(blocks))
    yield page
    assert page.evaluate("window.hacked") is None and troubles == []
    page.close()
    blocks.close(verbose=False)


def upload(page, name, image):
    content = io.BytesIO()
    image.save(content, "PNG")
    send(page, name, content.getvalue())


def send(page, name, content):
    file = {"name": name, "mimeType": "image/png", "buffer": content}
    page.set_input_files("input[type=file]", file)


def wait_for(page, answer):
    """Wait until the page shows this answer: every probability as a bar, and the gate's weights."""
    sides = (answer.probabilities, answer.vlm, answer.head)
    wanted = [*sides, dict(zip(("head", "VLM"), answer.weights, strict=True))]
    page.wait_for_function(
        """wanted => {
            const boxes = [...document.querySelectorAll("div[data-testid=label]")];
            return boxes.length == 4 && boxes.every((box, k) => {
                const bars = [...box.querySelectorAll("meter")];
                return bars.length == Object.keys(wanted[k]).length && bars.every((bar) =>
                    Math.abs(bar.getAttribute("value") - wanted[k][bar.ariaLabel]) < 1e-5);
            });
        }""",
        arg=wanted,
    )
    heads = page.get_by_test_id("label-output-value").all_inner_texts()
    assert heads == [max(side, key=side.get) for side in sides]


@pytest.mark.slow
def test_uploads_and_examples_are_answered_as_the_model_answers_them(page, tiny_emovlm_kd, images):
    answers = tiny_emovlm_kd.answer(images)
    upload(page, HOSTILE, images[1])
    wait_for(page, answers[1])
    page.get_by_role("button", name="Ask the VLM").click()
    page.wait_for_function("text => document.querySelector('textarea').value === text", arg=SCRIPT)
    page.locator(".grid-container button").nth(3).click()
    wait_for(page, answers[3])
    assert page.locator("textarea").input_value() == "", "the reason was another image's"


@pytest.mark.slow
def test_a_bad_file_gives_a_sentence_no_answer_and_the_page_goes_on(page, tiny_emovlm_kd, images):
    send(page, HOSTILE, b"dear diary")
    told = page.get_by_test_id("toast-text").inner_text()
    assert "no image that can be read" in told and "/" not in told
    assert page.locator("meter").count() == 0
    upload(page, "good.png", images[0])
    wait_for(page, tiny_emovlm_kd.answer([images[0]])[0])


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_ctrl_c_ends_the_command_and_leaves_nothing(tmp_path):
    code = "import sys; from unittest.mock import MagicMock\n"
    code += "from emokd_utils.cli import commands\n"
    code += "commands.open_run = MagicMock(); sys.exit(commands.main(['demo']))"
    env, pipe = os.environ | {"TMPDIR": str(tmp_path)}, subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        **{"cwd": project_root(), "env": env, "stdout": pipe, "stderr": pipe, "text": True},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout.readline().startswith("EmoVLM-KD answers at http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in error
    assert error.splitlines()[-1].startswith("emokd_utils: interrupted")
    assert list(tmp_path.glob("emokd-demo-*")) == []
