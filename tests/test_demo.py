"""The demo without a browser: what is shown of an answer, which examples, and polite failures."""

import io
import re
import socket
import sys
import urllib.request
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emokd_utils.cli import commands as cli
from emokd_utils.cli import demo
from emokd_utils.emotions import MIKELS
from emokd_utils.emovlm_kd import Answer
from emokd_utils.errors import InputError
from emokd_utils.run.store import NotMadeError

HOSTILE = "<img src=x onerror=\"window.hacked='name'\">.png"
SCRIPT = "</script><script>window.hacked='reason'</script> ${window.hacked=1} {{value}}"


def distribution(top, share, classes=MIKELS.labels):
    rest = (1 - share) / (len(classes) - 1)
    return {name: share if name == top else rest for name in classes}


def answer(final="awe", vlm="awe", head="fear", weights=(0.29, 0.71), classes=MIKELS.labels):
    return Answer(
        final,
        distribution(final, 0.8, classes),
        distribution(vlm, 0.7, classes),
        distribution(head, 0.6, classes),
        weights,
    )


class Page(HTMLParser):
    """What a piece of HTML says: its tags, its text, and the rows of its table as numbers."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.rows, self.open = [], [], {}, []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.open.append((tag, attrs))
        if tag == "data" and any(one == "td" for one, _ in self.open):
            self.rows[self.row].append(float(attrs["value"]))

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1][1].get("role") == "rowheader":
            self.row = data
            self.rows[data] = []

    @property
    def text(self):
        return re.sub(r"[\s\u202f]+", " ", "".join(self.texts))


def test_every_probability_of_the_answer_is_shown_in_one_order_on_one_scale():
    said = answer()
    page = Page(demo.answer_html(said, answer_ms=21.4))
    assert list(page.rows) == list(MIKELS.labels)
    for name, row in page.rows.items():
        assert row == [said.probabilities[name], said.vlm[name], said.head[name]]
    bars = [attrs["style"] for _, attrs in page.tags if attrs.get("class") == "ekd-bar"]
    assert bars == [f"--p: {value}" for row in page.rows.values() for value in row]
    assert "EmoVLM-KD says awe 80 %" in page.text


def test_the_answer_comes_before_the_reason_and_both_are_timed():
    first = Page(demo.answer_html(answer(), answer_ms=1234.5)).text
    assert "The VLM is writing it." in first and "The answer took 1,234 ms." in first
    then = Page(demo.answer_html(answer(), answer_ms=21.4, reason="A comet.", reason_ms=58.2)).text
    assert "A comet." in then and "The answer took 21 ms, the reason 58 ms." in then
    silent = Page(demo.answer_html(answer(), answer_ms=1, reason="", reason_ms=1)).text
    assert "(nothing)" in silent


def test_only_an_image_with_a_label_is_called_right_or_wrong():
    assert not re.search("right|wrong", Page(demo.answer_html(answer(), answer_ms=1)).text)
    page = Page(demo.answer_html(answer(), answer_ms=1, label="fear"))
    assert "Its label is fear." in page.text
    marks = [attrs.get("class", "") for tag, attrs in page.tags if tag == "span"]
    marks = [mark for mark in marks if mark in ("ekd-right", "ekd-wrong")]
    assert marks == ["ekd-wrong", "ekd-wrong", "ekd-right"]


def test_texts_that_nobody_vouches_for_stay_texts():
    classes = ("<b>calm</b>", "a & b", 'q"uote')
    picture = Image.new("RGB", (30, 20), "red")
    html = demo.answer_html(
        answer(classes[0], classes[1], classes[2], classes=classes),
        answer_ms=1,
        reason=SCRIPT,
        reason_ms=1,
        picture=picture,
        name=HOSTILE,
        about=HOSTILE,
        label="<b>calm</b>",
    )
    page = Page(html)
    assert {tag for tag, _ in page.tags} & {"script", "b"} == set()
    (image,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert set(image) == {"src", "alt"} and image["alt"] == HOSTILE
    assert HOSTILE in page.text and SCRIPT in page.text
    assert list(page.rows) == list(classes)
    error = Page(demo.message_html(HOSTILE, error=True))
    assert HOSTILE in error.text and [tag for tag, _ in error.tags] == ["section", "div", "p"]


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ((0.29, 0.71), "The gate leaned on the VLM (71 %)."),
        ((0.64, 0.36), "The gate leaned on the head (64 %)."),
        ((0.47, 0.53), "The gate weighed both about equally (53 % the VLM)."),
        ((0.0, 1.0), "The gate leaned on the VLM (100 %)."),
        ((0.002, 0.998), "The gate leaned on the VLM (> 99 %)."),
    ],
)
def test_the_gate_in_one_sentence(weights, sentence):
    said = demo.gate_sentence(weights)
    assert re.sub(r"[\u00a0\u202f]", " ", said) == sentence
    page = Page(demo.answer_html(answer(weights=weights), answer_ms=1))
    assert sentence in page.text
    head, vlm = weights
    widths = [attrs["style"] for _, attrs in page.tags if "--w" in attrs.get("style", "")]
    assert [style.split(";")[0] for style in widths] == [f"--w: {vlm}", f"--w: {head}"]


@pytest.mark.parametrize(
    ("final", "vlm", "head", "outcome"),
    [
        ("awe", "awe", "awe", "VLM and head both say awe."),
        ("joy", "awe", "awe", "VLM and head both say awe, but what came out is joy."),
        ("awe", "awe", "joy", "The answer is the VLM's awe, not the head's joy."),
        ("joy", "awe", "joy", "The answer is the head's joy, not the VLM's awe."),
        ("sad", "awe", "joy", "The VLM says awe, the head joy; what came out is sad."),
    ],
)
def test_whose_answer_it_is(final, vlm, head, outcome):
    said = answer(final, vlm, head, classes=("awe", "joy", "sad"))
    assert outcome in Page(demo.answer_html(said, answer_ms=1)).text


# --------------------------------------------------------------------------------------- uploads


def png(size=(200, 100), mode="RGB"):
    written = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(written, "PNG")
    return written.getvalue()


def bomb():
    written = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(written, "PNG")
    return written.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.png", lambda: b"", "no bytes"),
        ("notes.png", lambda: b"dear diary", "not an image but text"),
        ("photo.heic", lambda: b"\0\0\0\x18ftypheic" + bytes(90), "HEIC"),
        ("cut.png", lambda: png()[:-900], "breaks off"),
        ("bomb.png", bomb, "too much memory"),
        ("thin.png", lambda: png((900, 2)), "900 x 2 pixels"),
    ],
)
def test_what_is_no_usable_image_is_named_in_one_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(InputError, match=words) as error:
        demo.open_upload(path)
    assert str(error.value).startswith(name)
    assert str(tmp_path) not in str(error.value) and "\n" not in str(error.value)


def test_an_upload_is_upright_rgb(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("CMYK", (60, 20)).save(tmp_path / "turned.jpg", exif=exif)
    image = demo.open_upload(tmp_path / "turned.jpg")
    assert (image.size, image.mode) == ((20, 60), "RGB")


# -------------------------------------------------------------------------------------- examples


def kept(n=64, noise=(), captions=True):
    """A pipeline that has kept predictions: VLM and head right in every combination, in turns."""
    ids = [f"test/{MIKELS.labels[k % 8]}/{k:03d}.png" for k in range(n)]
    ids += [name.replace("test", "train") for name in ids]
    table = pd.DataFrame(
        {
            "split": [name.split("/")[0] for name in ids],
            "label": [name.split("/")[1] for name in ids],
            "label_noise": [name in noise for name in ids],
        },
        index=ids,
    )
    if captions:
        table["caption"] = [f"a picture of {name}" for name in ids]
    labels = np.array([MIKELS.index(label) for label in table["label"]])
    k = np.arange(2 * n) // 8
    vlm, head = k % 2 == 0, k // 2 % 2 == 0
    dataset = SimpleNamespace(
        table=table,
        label_index=labels,
        split=lambda name: SimpleNamespace(table=table[table["split"] == name]),
        open=lambda image: Image.new("RGB", (8, 8)),
    )
    logits = np.eye(8)[(labels + ~head) % 8]
    return SimpleNamespace(
        dataset=dataset,
        tuned=lambda seed: SimpleNamespace(ids=ids, correct=vlm),
        head=lambda seed: SimpleNamespace(logits=lambda features: logits),
        features=lambda: None,
        right=dict(zip(ids, zip(vlm.tolist(), head.tolist(), strict=True), strict=True)),
    )


def test_the_examples_are_test_images_of_every_case_and_of_different_labels():
    pipeline = kept()
    examples = demo.choose_examples(pipeline)
    assert [one.group for one in examples] == [name for name in demo.GROUPS.values() for _ in "ab"]
    assert all(demo.GROUPS[pipeline.right[one.id]] == one.group for one in examples)
    assert all(one.id.startswith(f"test/{one.label}/") for one in examples)
    assert {one.label for one in examples} == set(MIKELS.labels)
    assert examples[0].about == f"a picture of {examples[0].id}"


def test_images_whose_label_is_noise_are_no_examples_and_a_group_may_be_small():
    first = demo.choose_examples(kept(captions=False))
    assert first[0].about == first[0].id
    noise = [one.id for one in first]
    assert not {one.id for one in demo.choose_examples(kept(noise=noise))} & set(noise)
    few = kept(n=8)
    assert [one.group for one in demo.choose_examples(few)] == ["Both right"] * 2


# ------------------------------------------------------------------------------------ the command


def fail(*args, **kwargs):
    raise NotMadeError("runs holds no such thing")


@pytest.mark.parametrize(
    ("missing", "part"), [("tuned_vlm", "tuned VLM"), ("head", "head"), ("gate", "gate")]
)
def test_a_part_that_was_not_trained_is_named_with_the_command_that_trains_it(missing, part):
    parts = dict.fromkeys(("tuned_vlm", "head", "gate"), lambda *args: None)
    pipeline = SimpleNamespace(folder="runs/mini", **parts | {missing: fail})
    with pytest.raises(InputError, match=f"^runs/mini holds no {part} of seed 3 .* `run it`"):
        demo.load(pipeline, "run it", seed=3)


def test_without_a_run_the_command_says_what_to_do(tmp_path, capsys):
    for split in ("train", "test"):
        for label in ("joy", "anger"):
            (tmp_path / "my photos" / split / label).mkdir(parents=True)
            for k in range(3):
                name = tmp_path / "my photos" / split / label / f"{k}.png"
                Image.effect_noise((30, 30), 50 + len(label) + k).save(name)
    data, runs = str(tmp_path / "my photos"), str(tmp_path / "runs")
    asked = ["demo", "--data", data, "--runs", runs, "--seed", "2", "--profile", "mini"]
    assert cli.main(asked) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no tuned VLM of seed 2" in error
    assert f"`python -m emokd_utils run --data '{data}' --runs {runs} --seed 2`" in error
    models = ["--vlm", "someone/vlm", "--vision", "resnet18", "--set", "tuning_epochs=1"]
    assert cli.main([*asked, *models]) == 2
    assert (
        "`python -m emokd_utils run --vlm someone/vlm --vision resnet18 "
        f"--data '{data}' --runs {runs} --seed 2 --set tuning_epochs=1`"
    ) in capsys.readouterr().err
    assert cli.main([*asked, "--set", "tuning_epochs=many"]) == 2
    assert "tuning_epochs wants int, not 'many'" in capsys.readouterr().err


def test_an_unknown_gate_is_told_before_anything_is_loaded(tmp_path, capsys):
    assert cli.main(["demo", "--runs", str(tmp_path), "--gate", "golden"]) == 2
    error = capsys.readouterr().err
    assert "'golden'" in error and "concat_linear" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_gradio_the_command_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["demo"]) == 2
    output = capsys.readouterr()
    assert output.err == 'emokd_utils: gradio is not installed: `pip install -e ".[demo]"`\n'
    assert output.out == ""


def test_a_port_is_a_number_that_a_port_can_have(capsys):
    parse_args = cli.build_parser().parse_args
    args = parse_args(["demo", "--port", "8080", "--gate", "bilinear"])
    assert (args.port, args.gate, args.open, args.skip_bad) == (8080, "bilinear", False, False)
    assert parse_args(["demo"]).port is None
    for wrong in ("0", "65536", "-1", "http"):
        with pytest.raises(SystemExit) as stop:
            parse_args(["demo", "--port", wrong])
        assert stop.value.code == 2
    assert "not a port" in capsys.readouterr().err


# ------------------------------------------------------------------------------------- the server


def stub():
    vlm = SimpleNamespace(name="tiny_vlm", reasons=lambda images: ["A comet."])
    return SimpleNamespace(vlm=vlm, answer=lambda images: [answer()])


def free_port():
    with socket.socket() as one:
        one.bind((demo.HOST, 0))
        return one.getsockname()[1]


@pytest.fixture
def asked(monkeypatch):
    """The hosts whose addresses were looked up; every connection by Python starts with that."""
    hosts, look_up = [], socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: hosts.append(host) or look_up(host, *rest, **more),
    )
    return hosts


def test_the_page_is_served_on_the_loopback_alone_and_asks_nobody_else(asked, monkeypatch, capfd):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    monkeypatch.setenv("GRADIO_SHARE", "True")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    blocks = demo.build(stub())
    port = free_port()
    try:
        url = demo.launch(blocks, port)
        assert url == f"http://127.0.0.1:{port}/"
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.2", port), timeout=2).close()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url) as answered:
            page = answered.read().decode()
            policy = answered.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'") and "http" not in policy
        assert "The answer appears here." in page and demo.LIMITS["tiny_vlm"] in page
        other = demo.build(stub())
        with pytest.raises(InputError, match=f"^port {port} is taken: choose another"):
            demo.launch(other, port)
    finally:
        blocks.close(verbose=False)
    assert set(asked) <= {"127.0.0.1", "127.0.0.2", "localhost"}
    assert not blocks.analytics_enabled and blocks.share_url is None
    output = capfd.readouterr()
    assert output.out == "" and "Traceback" not in output.err


def test_another_vlm_than_the_built_in_one_has_another_limit():
    model = stub()
    model.vlm.name = "qwen2-vl-2b"
    shown = str(demo.build(model).get_config_file()["components"])
    assert demo.LIMIT in shown and "TinyVLM" not in shown
