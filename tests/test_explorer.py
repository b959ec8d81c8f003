"""The explorer without a browser: its data, its views, the page as a text, what it refuses."""

import base64
import hashlib
import io
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emokd_utils import explorer, figures
from emokd_utils.data import ImageDataset
from emokd_utils.emotions import infer_label_set
from emokd_utils.errors import InputError
from emokd_utils.explorer import GateView, content, explore, jensen_shannon
from emokd_utils.predictions import Predictions

CLASSES = ("anger", "fear", "joy")
HOSTILE = "<img src=x onerror=alert(1)>.png"
SCRIPT = "</script><script>alert(2)</script><!--"


def made(n=6, model="VLM", seed=0, answers=True, ids=None, labels=None, **other):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(len(CLASSES), 0.5), n)
    labels = labels or [CLASSES[k % 3] for k in range(n)]
    return Predictions(
        ids=ids or [f"test/{k:02d}.png" for k in range(n)],
        splits=["test"] * n,
        labels=labels,
        classes=CLASSES,
        probabilities=p,
        answers=[f"It is {CLASSES[k]}." for k in p.argmax(1)] if answers else None,
        provenance={"model": model},
        **other,
    )


def pictures(ids, side=24):
    tones = np.random.default_rng(0).integers(0, 256, (len(ids), 3)).tolist()
    return {
        one: Image.new("RGB", (side, side), tuple(tone))
        for one, tone in zip(ids, tones, strict=True)
    }


def shown(n=6, **settings):
    a, b = made(n), made(n, "vision model", seed=1, answers=False)
    return explore(a, b, settings.pop("images", pictures(a.ids)), **settings)


def data_of(widget):
    return json.loads(widget._data)


def unpacked(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


# ------------------------------------------------------------------------------------------ numbers


def test_jensen_shannon_is_that_of_the_definition_and_0_and_1_at_its_ends():
    rng = np.random.default_rng(3)
    p, q = rng.dirichlet([1] * 4, 20), rng.dirichlet([1] * 4, 20)
    p[0], q[0], p[1], q[1] = [1, 0, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]
    for found, one, two in zip(jensen_shannon(p, q), p, q, strict=True):
        total = 0.0
        for x, y in zip(one, two, strict=True):
            total += x * math.log2(2 * x / (x + y)) / 2 if x else 0
            total += y * math.log2(2 * y / (x + y)) / 2 if y else 0
        assert found == pytest.approx(total, abs=1e-12)
    assert jensen_shannon(p, q)[:2] == pytest.approx([1, 0])


@pytest.mark.parametrize("colour", figures.MODEL_COLOURS.values())
def test_colours_are_lifted_until_they_can_be_seen_on_the_dark_ground(colour):
    shades = content._shades(colour)
    assert shades["light"] == colour
    assert content._contrast(shades["dark"], "#15191e") >= 4.5
    for theme in ("light", "dark"):
        assert content._contrast(shades[theme], shades[f"{theme}_ink"]) >= 4.5


# ------------------------------------------------------------------------------------ what is shown


def test_the_data_hold_both_models_in_one_order_of_images():
    a = made()
    b = made(seed=1, model="vision model", answers=False)
    data = data_of(explore(a, b.select(a.ids[::-1]), pictures(a.ids)))
    assert data["ids"] == list(a.ids) and data["n"] == 6
    assert [model["name"] for model in data["models"]] == ["VLM", "vision model"]
    for model, wanted in zip(data["models"], (a, b), strict=True):
        p = unpacked(model["probabilities"], "<f4").reshape(6, 3)
        assert p == pytest.approx(wanted.probabilities, abs=1e-6)
        assert unpacked(model["predicted"], "<i4").tolist() == wanted.predicted_index.tolist()
    assert data["models"][0]["answers"] == list(a.answers) and data["models"][1]["answers"] is None
    assert [one["colour"]["light"] for one in data["classes"]] == [
        figures.class_colours(CLASSES)[name] for name in CLASSES
    ]


def test_further_models_are_named_once_each():
    a, b, c = made(), made(model="vision model", seed=1), made(model="head", seed=2)
    named = {"VLM, tuned": a, "vision": b, "the head": c}
    widget = explore(a, b, pictures(a.ids), more=named)
    assert [model["name"] for model in data_of(widget)["models"]] == list(named)
    widget = explore(a, b, pictures(a.ids), more=[c, made(model="VLM", seed=5)], names=("x", "y"))
    names = [model["name"] for model in data_of(widget)["models"]]
    assert names == ["x", "y", "head", "VLM"]
    widget = explore(a, made(seed=4), pictures(a.ids), more=[a])
    assert [model["name"] for model in data_of(widget)["models"]] == ["VLM", "VLM (2)"]
    widget = explore(a, a, pictures(a.ids))
    assert set(widget.selection["disagreement"]) == {0}


@pytest.mark.parametrize(
    ("values", "kind", "options"),
    [
        (["both", "content", "atmosphere"], "category", ["content", "atmosphere", "both"]),
        ([True, False, True], "category", ["False", "True"]),
        ([3, 1, 3], "category", ["1", "3"]),
        ([0.5, None, 2.0], "category", ["0.5", "2", "(none)"]),
        ([None, None, None], "category", ["(none)"]),
        (pd.Categorical(["lo", "hi", "lo"], ["lo", "mid", "hi"]), "category", ["lo", "mid", "hi"]),
    ],
)
def test_metadata_of_few_values_are_options(values, kind, options):
    column = content._column("cue", pd.Series(values))
    assert (column.kind, list(column.options)) == (kind, options)
    assert [column.options[k] for k in column.codes if k >= 0]


def test_metadata_of_many_values_are_a_scale_or_text():
    scale = content._column("hue", pd.Series([*np.linspace(0, 1, 20), np.nan, np.inf]))
    assert scale.kind == "number" and np.isnan(scale.numbers()[-2:]).all()
    text = content._column("caption", pd.Series([f"a thing {k}" for k in range(60)] + [None]))
    assert text.kind == "text" and text.texts()[-1] == ""


def test_metadata_come_from_the_data_set_or_a_table():
    a = made()
    table = pd.DataFrame({"label": "x", "split": "y", "__proto__": range(6)}, index=a.ids)
    data = data_of(shown(metadata=table))
    assert [column["name"] for column in data["columns"]] == ["__proto__"]
    twice = pd.concat([table, table.iloc[:1]])
    with pytest.raises(InputError, match=r"metadata has 'test/00\.png' twice"):
        shown(metadata=twice)


def test_splits_can_be_filtered_where_there_are_several():
    a = made()
    a = Predictions(a.ids, ["val"] * 2 + ["test"] * 4, a.labels, a.classes, a.probabilities)
    widget = explore(a, a, pictures(a.ids), view="col.split=val")
    assert set(widget.selection["split"]) == {"val"} and len(widget.selection) == 2


def test_a_data_set_gives_pictures_and_metadata(tmp_path):
    ids = ["test/fear/1.png", "test/joy/2.png", "test/joy/3.png"]
    for one in ids[:2]:
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20), "teal").save(tmp_path / one)
    table = pd.DataFrame(
        {"split": "test", "label": ["fear", "joy", "joy"], "cue": ["both", "content", "both"]},
        index=ids,
    )
    dataset = ImageDataset(tmp_path, infer_label_set(CLASSES), table, "0" * 16)
    a, b = made(2, ids=ids[:2]), made(2, ids=ids[:2], seed=1)
    widget = explore(a, b, dataset, view="col.cue=content")
    assert widget.selection["cue"].tolist() == ["content"]
    with Image.open(io.BytesIO(widget._content.picture(0, 30, 80))) as image:
        assert image.size == (30, 15)
    gone = explore(made(3, ids=ids), made(3, ids=ids, seed=1), dataset)
    assert gone._content.picture(2, 30, 80) is None


def test_the_gate_of_a_pipeline_comes_with_what_went_into_it():
    from emokd_utils.gates import gate_inputs
    from emokd_utils.gating import train_gate
    from emokd_utils.settings import GateSettings

    rng = np.random.default_rng(0)
    logits, vlm = rng.normal(size=(24, 3)), made(24)
    vlm = Predictions(
        vlm.ids, ["val"] * 12 + ["test"] * 12, vlm.labels, CLASSES, vlm.probabilities, vlm.answers
    )
    inputs = gate_inputs(logits, None, vlm.one_hot(), "logits_onehot")
    settings = GateSettings(folds=0, epochs=1)
    gate = train_gate(
        *inputs, vlm.label_index, num_classes=3, settings=settings, seed=0, trained_on="val"
    )

    class Pipeline:
        def gate(self, seed, kind):
            return gate

        def tuned(self, seed):
            return vlm

        def head(self, seed):
            return self

        def logits(self, features):
            return logits

        def features(self):
            return None

        def emovlm_kd(self, seed, kind):
            about = {"ids": vlm.ids, "splits": vlm.splits, "labels": vlm.labels}
            return Predictions.from_logits(
                gate.logits(*inputs), **about, classes=CLASSES, provenance={"model": "EmoVLM-KD"}
            )

    view = GateView.from_pipeline(Pipeline())
    assert view.weights == pytest.approx(gate.weights(*inputs)[12:])
    assert view.student.predicted_index.tolist() == logits[12:].argmax(1).tolist()
    assert view.vlm.ids == view.predictions.ids == view.student.ids == vlm.ids[12:]
    data = data_of(explore(view.vlm, view.student, pictures(vlm.ids), view))
    assert [data["models"][data[part]]["name"] for part in ("vlm", "student", "gate")] == [
        "model 1",
        "head, distilled",
        "EmoVLM-KD",
    ]


# -------------------------------------------------------------------------------------------- views


@pytest.fixture
def gated():
    a = made(40, "VLM, tuned")
    b = made(40, "vision model", seed=1, answers=False)
    student, final = made(40, "head", seed=2, answers=False), made(40, "EmoVLM-KD", seed=3)
    weights = np.random.default_rng(0).dirichlet([1, 1], 40)
    about = pd.DataFrame(
        {
            "cue": ["content", "both"] * 20,
            "hue": np.linspace(0, 360, 40),
            "caption": [f"Thing {k}" for k in range(41)][1:],
            "label": "taken",
        },
        index=a.ids,
    )
    about["caption"] = [f"Thing {k} of {k + 100}" for k in range(40)]
    return explore(
        a,
        b,
        pictures(a.ids),
        GateView(final, student, a, weights),
        metadata=about,
        reasons={a.ids[0]: "A Dark alley"},
    )


def test_the_selection_is_all_images_from_the_greatest_disagreement_down(gated):
    table = gated.selection
    assert len(table) == 40 and table.index.name == "id"
    assert (np.diff(table["disagreement"]) <= 1e-6).all()
    assert list(table.columns) == [
        *("split", "label", "cell", "predicted_a", "confidence_a", "correct_a"),
        *("predicted_b", "confidence_b", "correct_b", "disagreement", "answer", "reason"),
        *("gate_predicted", "gate_correct", "gate_student_share", "cue", "hue", "caption"),
    ]
    assert table.attrs == {"a": "VLM, tuned", "b": "vision model"}
    a = gated._content.models[0][1].select(table.index)
    assert table["predicted_a"].tolist() == list(a.predicted)
    assert table["correct_a"].tolist() == a.correct.tolist()
    assert table["confidence_a"].to_numpy() == pytest.approx(a.probabilities.max(1), abs=1e-6)


@pytest.mark.parametrize(
    ("view", "keeps"),
    [
        ("cell=a", lambda t: t["correct_a"] & ~t["correct_b"]),
        ("cell=both&cell=neither", lambda t: t["correct_a"] == t["correct_b"]),
        ("label=fear&label=joy", lambda t: t["label"] != "anger"),
        ("says_a=fear", lambda t: t["predicted_a"] == "fear"),
        ("says_b=joy&cell=b", lambda t: (t["predicted_b"] == "joy") & (t["cell"] == "only B")),
        ("conf_a=0.5..0.8", lambda t: t["confidence_a"].between(0.5, 0.8)),
        ("words=IT+fear", lambda t: t["answer"] == "It is fear."),
        ("words=dark+alley", lambda t: t.index == "test/00.png"),
        ("gate=wrong", lambda t: ~t["gate_correct"]),
        ("share=0..0.5", lambda t: t["gate_student_share"] <= 0.5),
        ("col.cue=both", lambda t: t["cue"] == "both"),
        ("col.hue=100..200", lambda t: t["hue"].between(100, 200)),
        ("col.caption=thing+139", lambda t: t["caption"] == "Thing 39 of 139"),
        ("cell=a&col.cue=content&gate=right", None),
    ],
)
def test_each_filter_keeps_what_it_says(gated, view, keeps):
    whole = gated.selection
    gated.view = view
    found = gated.selection
    if keeps is None:
        keeps = lambda t: (t["cell"] == "only A") & (t["cue"] == "content") & t["gate_correct"]  # noqa: E731
    assert found.index.tolist() == whole.index[keeps(whole)].tolist()
    assert found.columns.tolist() == whole.columns.tolist()


def test_a_view_sorts_and_swaps(gated):
    gated.view = "sort=id"
    assert gated.selection.index.tolist() == sorted(gated.selection.index)
    gated.view = "sort=conf_b&order=up"
    assert gated.selection["confidence_b"].is_monotonic_increasing
    before = gated.selection
    gated.view = "a=vision+model&b=head&sort=conf_a&order=up"
    assert gated.selection.attrs == {"a": "vision model", "b": "head"}
    assert gated.selection.index.tolist() == before.index.tolist()
    assert "answer" in gated.selection  # those of the first model that wrote any


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("colour=red", "a view has no 'colour'"),
        ("label=rage", "label is 'rage': choose of anger, fear, joy"),
        ("conf_a=high", r"conf_a is 'high': write LOW\.\.HIGH"),
        ("a=GPT", "a is 'GPT': choose of VLM, tuned, vision model"),
        ("sort=size", "sort is 'size'"),
        ("open=test/99.png", "no such image"),
    ],
)
def test_a_view_that_cannot_be_read_is_refused_and_the_old_one_stays(gated, view, words):
    gated.view = "label=fear"
    with pytest.raises(InputError, match=words):
        gated.view = view
    assert gated.view == "label=fear"


def test_the_hash_of_a_page_is_a_view(gated):
    gated.view = "#label=fear&open=test%2F01.png"
    assert gated.view == "label=fear&open=test%2F01.png"
    assert repr(gated) == "Explorer(VLM, tuned and vision model: 13 of 40 images selected)"


# --------------------------------------------------------------------------------------- the refused


def test_models_that_disagree_on_images_are_named_with_the_images():
    a, b = made(), made(5, "vision model", seed=1)
    with pytest.raises(InputError, match=r"'VLM' .* 'vision model' .* test/05\.png"):
        explore(a, b, pictures(a.ids))
    with pytest.raises(InputError, match=r"'EmoVLM-KD'.*test/05\.png"):
        explore(a, made(seed=1), pictures(a.ids), made(5, "EmoVLM-KD"))
    with pytest.raises(InputError, match=r"labels of 6 images differ: test/00\.png"):
        explore(a, made(seed=1, labels=["joy", "anger", "fear"] * 2), pictures(a.ids))
    with pytest.raises(InputError, match="give Predictions"):
        explore(a, None, pictures(a.ids))


def test_images_of_something_else_are_refused(tmp_path):
    a, b = made(), made(seed=1)
    with pytest.raises(InputError, match=r"none of the 6 images is in the mapping \(test/00\.png"):
        explore(a, b, {})
    with pytest.raises(InputError, match="none of the 6 images"):
        explore(a, b, tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        explore(a, b, tmp_path / "nowhere")
    with pytest.raises(InputError, match="images is list"):
        explore(a, b, [])


@pytest.mark.parametrize("weights", [np.ones((6, 2)), np.ones((5, 2)) / 2, np.full((6, 2), np.nan)])
def test_weights_are_two_shares_of_each_image(weights):
    with pytest.raises(InputError, match="weights"):
        GateView(made(), weights=weights)


def test_weights_follow_the_order_of_images():
    a, b, final = made(), made(seed=1), made(seed=2, model="EmoVLM-KD")
    share = np.linspace(0, 1, 6)
    gate = GateView(final.select(a.ids[::-1]), weights=np.stack([share, 1 - share], 1))
    found = explore(a, b, pictures(a.ids), gate, view="sort=id").selection
    assert found["gate_student_share"].to_numpy() == pytest.approx(share[::-1])
    assert found["gate_predicted"].tolist() == list(final.predicted)


# ----------------------------------------------------------------------------------------- the page


def scripts(page):
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    page = shown().to_html(tmp_path / "new" / "page.html").read_text("utf-8")
    found = scripts(page)
    assert [about for about, _ in found] == [
        ' type="application/json" id="emx-data"',
        ' type="application/json" id="emx-view"',
        ' type="application/json" id="emx-pictures"',
        ' type="module"',
    ]
    assert "connect-src" not in page and "default-src 'none'" in page
    digest = base64.b64encode(hashlib.sha256(found[-1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page
    rest = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|<link|@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\b", rest)
    embedded = json.loads(found[2][1])["inside"]
    with Image.open(io.BytesIO(base64.b64decode(embedded[0]))) as image:
        assert (image.format, image.size) == ("WEBP", (24, 24))


def test_the_module_never_makes_markup_of_data():
    source = (explorer.STATIC / "explorer.js").read_text("utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in source
    assert "</script" not in source and "</style" not in source


def test_hostile_text_does_not_leave_the_data(tmp_path):
    ids = [HOSTILE, f"{SCRIPT}.png", "\ud800.png", "a\u202egnp.exe"]
    a = made(4, SCRIPT, ids=ids)
    a = Predictions(
        a.ids, a.splits, a.labels, a.classes, a.probabilities, [SCRIPT] * 4, None, a.provenance
    )
    b = made(4, HOSTILE, ids=ids, seed=1)
    index = pd.Index(ids, dtype=object)  # where pyarrow is, text of pandas holds no lone surrogate
    about = pd.DataFrame({HOSTILE: [SCRIPT, "&amp;", "<b>", "x"]}, index=index)
    widget = explore(a, b, pictures(ids), metadata=about, reasons={HOSTILE: SCRIPT})
    page = widget.to_html(tmp_path / "page.html").read_text("utf-8")
    assert (
        len(scripts(page)) == page.lower().count("<script") == page.lower().count("</script") == 4
    )
    assert "<img" not in page and "&lt;/script&gt;" in page and "&lt;img" in page  # the title
    assert json.loads(scripts(page)[0][1])["ids"] == ids
    assert "<" not in scripts(page)[0][1]


def test_a_page_opens_with_the_view_of_the_widget_or_another(gated, tmp_path):
    gated.view = "label=fear"
    page = gated.to_html(tmp_path / "a.html").read_text("utf-8")
    assert json.loads(scripts(page)[1][1]) == "label=fear"
    page = gated.to_html(tmp_path / "a.html", view="#cell=a").read_text("utf-8")
    assert json.loads(scripts(page)[1][1]) == "cell=a"
    with pytest.raises(InputError, match="label is 'x'"):
        gated.to_html(tmp_path / "a.html", view="label=x")
    with pytest.raises(InputError, match="no page"):
        gated.to_html(tmp_path / "a.pdf")
    with pytest.raises(InputError, match="pictures is 'none'"):
        gated.to_html(tmp_path / "a.html", pictures="none")


def test_pictures_are_as_large_as_fits(tmp_path):
    rng = np.random.default_rng(0)
    a, b = made(60), made(60, seed=1)
    noise = {
        one: Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)) for one in a.ids
    }
    widget = explore(a, b, noise)
    sizes = []
    for limit in (8, 0.6):
        path = widget.to_html(tmp_path / "page.html", max_mb=limit)
        assert path.stat().st_size <= limit * 1e6
        first = json.loads(scripts(path.read_text("utf-8"))[2][1])["inside"][0]
        sizes.append(len(first))
    assert sizes[0] > 3 * sizes[1]
    with pytest.raises(InputError, match="60 pictures do not fit into 0.1 MB: .*'folder'"):
        widget.to_html(tmp_path / "page.html", max_mb=0.1)


def test_pictures_can_lie_beside_the_page_under_names_of_our_own(tmp_path):
    ids = ["../out.png", HOSTILE, "gone.png"]
    a, b = made(3, ids=ids), made(3, ids=ids, seed=1)
    widget = explore(a, b, pictures(ids[:2]))
    path = widget.to_html(tmp_path / "my page.html", pictures="folder")
    folder = tmp_path / "my page_pictures"
    assert sorted(one.name for one in folder.iterdir()) == ["000000.webp", "000001.webp"]
    where = json.loads(scripts(path.read_text("utf-8"))[2][1])
    assert where == {"folder": "my%20page_pictures"}
    assert data_of(widget)["missing"] == [2]


def test_nothing_outside_of_the_folder_is_opened(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for where in (tmp_path / "secret.png", folder / "in.png", folder / "text.png"):
        Image.new("RGB", (8, 8)).save(where)
    (folder / "text.png").write_text("not an image")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    ids = ["in.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "text.png", "a\0"]
    content = explore(made(ids=ids), made(ids=ids, seed=1), folder)._content
    found = [content.picture(row, 64, 80) is not None for row in range(6)]
    assert found == [True, False, False, False, False, False]


# --------------------------------------------------------------------------------------- the widget


def test_the_widget_answers_for_pictures_and_for_nothing_else(monkeypatch):
    widget, sent = shown(), []
    monkeypatch.setattr(widget, "send", lambda content, buffers: sent.append((content, buffers)))
    widget._on_message(widget, {"type": "pictures", "rows": [2, 0, 99, -1, "1"], "large": 1}, [])
    ((content, buffers),) = sent
    assert content == {"type": "pictures", "rows": [2, 0], "large": False}
    assert all(data[8:12] == b"WEBP" for data in buffers)
    for nonsense in (None, {}, {"type": "pictures"}, {"type": "pictures", "rows": [0] * 999}):
        widget._on_message(widget, nonsense, [])
    assert len(sent) == 1


def test_no_images_one_image_and_a_class_never_predicted(tmp_path):
    empty = Predictions([], [], [], CLASSES, np.zeros((0, 3)))
    widget = explore(empty, empty, {})
    assert len(widget.selection) == 0 and "0 of 0" in repr(widget)
    assert widget.to_html(tmp_path / "none.html").stat().st_size > 10_000
    one = shown(1)
    assert len(one.selection) == 1 and one.to_html(tmp_path / "one.html").is_file()
    sure = np.array([[0.9, 0.1, 0.0]] * 3)
    a = Predictions(["x", "y", "z"], ["test"] * 3, CLASSES, CLASSES, sure)
    widget = explore(a, a, pictures(a.ids), view="says_a=joy")
    assert len(widget.selection) == 0


def test_an_answer_that_names_no_class_is_none_and_never_a_class():
    a = Predictions(
        ["x", "y"],
        ["test"] * 2,
        ["fear", "joy"],
        CLASSES,
        [[1 / 3] * 3, [0, 0, 1]],
        ["banana", "joy"],
        [True, False],
    )
    widget = explore(a, a, pictures(a.ids), view="says_a=(none)")
    assert widget.selection.index.tolist() == ["x"]
    assert widget.selection["predicted_a"].tolist() == [None]
    assert widget.selection["cell"].tolist() == ["neither"]
