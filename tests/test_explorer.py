"""The explorer without a browser: its table and data, the page as a text, what it refuses."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from emokd_utils.data import ImageDataset
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.explorer import GateView, content, explore
from emokd_utils.predictions import Predictions

CLASSES = MIKELS.labels
HOSTILE = "<img src=x onerror=\"window.hacked='name'\">.png"
SCRIPT = "</script><script>window.hacked='answer'</script><!-- {'emotion': 'fear'}"


def made(n=6, model="VLM", seed=0, answers=True, ids=None, labels=None, skill=2.0):
    labels = labels or [CLASSES[k % 8] for k in range(n)]
    right = np.array(labels)[:, None] == list(CLASSES)
    p = softmax(np.random.default_rng(seed).normal(0, 1.2, (n, 8)) + skill * right, axis=1)
    words = [f"{CLASSES[k]} number {row % 7}" for row, k in enumerate(p.argmax(1))]
    return Predictions(
        ids or [f"test/{k:05d}.png" for k in range(n)],
        ["test"] * n,
        labels,
        CLASSES,
        p,
        words if answers else None,
        provenance={"model": model, "versions": {"torch": "2.9"}},
    )


def pictures(ids, side=24):
    tones = np.random.default_rng(0).integers(0, 256, (len(ids), 3)).tolist()
    return {i: Image.new("RGB", (side, side), tuple(t)) for i, t in zip(ids, tones, strict=True)}


def shown(n=6, **settings):
    a, b = made(n), made(n, "vision model", seed=1, answers=False)
    return explore(a, b, settings.pop("images", pictures(a.ids)), **settings)


def test_disagreement_is_the_divergence_in_bits_and_0_and_1_at_its_ends():
    p, q = np.random.default_rng(3).dirichlet([1] * 4, (2, 20))
    assert content.jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2, axis=1) ** 2)
    p, q = np.array([[1, 0, 0], [0.5, 0.5, 0]]), np.array([[0, 0, 1], [0.5, 0.5, 0]])
    assert content.jensen_shannon(p, q) == pytest.approx([1, 0])


@pytest.fixture
def gated():
    a, b = made(40, "VLM, tuned"), made(40, "vision model", seed=1, answers=False)
    student, final = made(40, "head", seed=2, answers=False), made(40, "EmoVLM-KD", seed=3)
    share = np.linspace(0, 1, 40)
    weights = np.stack([share, 1 - share], 1)
    reverse = GateView(final.select(a.ids[::-1]), student, a, weights[::-1])
    about = pd.DataFrame({"cue": ["content", "both"] * 20, "label": "x", "cell": "y"}, index=a.ids)
    notes = {"metadata": about, "reasons": {a.ids[0]: "So."}}
    return explore(a, b.select(b.ids[::-1]), pictures(a.ids), reverse, **notes)


def test_the_table_has_a_row_an_image_whatever_the_order_of_its_parts(gated):
    table, (a, b, _, final) = gated.table, gated._content.models.values()
    of_models = "label cell predicted_a confidence_a correct_a predicted_b confidence_b correct_b"
    of_gate = "gate_predicted gate_correct gate_student_share split cue"
    wanted = [*of_models.split(), "disagreement", "answer", "reason", *of_gate.split()]
    assert list(table.columns) == [*wanted, "cell (metadata)"]
    assert table.index.tolist() == list(a.ids) and table.index.name == "id"
    assert list(gated._content.models) == ["VLM, tuned", "vision model", "head", "EmoVLM-KD"]
    for model, side in ((a, "a"), (b, "b")):
        assert table[f"predicted_{side}"].tolist() == list(model.predicted)
        assert table[f"correct_{side}"].tolist() == model.correct.tolist()
        assert table[f"confidence_{side}"].tolist() == model.probabilities.max(1).tolist()
    assert table["gate_predicted"].tolist() == list(final.predicted)
    assert table["gate_student_share"].to_numpy() == pytest.approx(np.linspace(0, 1, 40))
    assert table["reason"].tolist() == ["So."] + [None] * 39
    names = {(1, 1): "both", (1, 0): "a", (0, 1): "b", (0, 0): "neither"}
    rights = zip(a.correct, b.correct, strict=True)
    assert table["cell"].tolist() == [names[pair] for pair in rights]


def test_pandas_chooses_and_the_explorer_shows_and_reads_back(gated):
    assert gated.selection["disagreement"].is_monotonic_decreasing
    assert repr(gated) == "Explorer(VLM, tuned and vision model: 40 of 40 images shown)"
    chosen = gated.table.query("cell != 'both' and cue == 'content'").sort_values("confidence_a")
    gated.show(chosen.index)
    assert gated.selection.equals(chosen) and f"{len(chosen)} of 40" in repr(gated)
    gated._rows = [3, 1]  # as the browser sets it after a click
    assert gated.selection.index.tolist() == ["test/00003.png", "test/00001.png"]
    with pytest.raises(InputError, match=r"'test/00099\.png' is no image here"):
        gated.show(["test/00001.png", "test/00099.png"])
    assert len(gated.selection) == 2
    gated.show()
    assert len(gated.selection) == 40


def test_models_are_named_once_each():
    a, b, c = made(), made(model="vision model", seed=1), made(model="head", seed=2)
    for more, names, wanted in (
        ({"VLM, tuned": a, "vision": b, "the head": c}, None, ["VLM, tuned", "vision", "the head"]),
        ({"z": c, "w": a}, ("x", "y"), ["x", "y", "z"]),
        ({"vision": c}, None, ["VLM", "vision model", "vision"]),
    ):
        widget = explore(a, b, pictures(a.ids), more=more, names=names)
        assert list(widget._content.models) == wanted
    assert set(explore(a, a, pictures(a.ids)).table["disagreement"]) == {0}


@pytest.mark.parametrize(
    ("values", "kind", "options"),
    [
        (["both", "content", "atmosphere"], "set", ["content", "atmosphere", "both"]),
        ([True, False, True], "set", ["False", "True"]),
        ([3, 1, 3], "set", ["1", "3"]),
        ([0.5, None, 2.0], "set", ["0.5", "2", "(none)"]),
        ([None, None, None], "set", ["(none)"]),
        ([*np.linspace(0, 1, 20), np.nan, np.inf], "range", None),
        ([f"a thing {k}" for k in range(60)] + [None], "text", None),
    ],
)
def test_metadata_are_chosen_by_what_suits_their_values(values, kind, options):
    facet = content.facet("name", pd.Series(values))
    assert (facet["kind"], facet.get("options")) == (kind, options)
    assert kind != "text" or facet["values"][-1] == ""
    assert kind != "range" or facet["values"][-3:] == [1, None, None]


def test_an_answer_that_names_no_class_is_none_and_never_a_class():
    p, known = [[0.5, 0.5], [0, 1]], (["fear", "joy"], ("fear", "joy"))
    a = Predictions([*"xy"], ["test"] * 2, *known, p, ["banana", "joy"], [True, False])
    table = explore(a, a, pictures("xy")).table
    assert table["predicted_a"].tolist() == [None, "joy"]
    assert table["cell"].tolist() == ["neither", "both"]


def test_a_data_set_gives_pictures_and_metadata(tmp_path):
    ids = ["test/fear/1.png", "test/awe/2.png", "test/awe/3.png"]
    for image in ids[:2]:
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20), "teal").save(tmp_path / image)
    table = pd.DataFrame({"split": "test", "label": "fear", "cue": ["x", "y", "x"]}, index=ids)
    dataset = ImageDataset(tmp_path, MIKELS, table, "0" * 16)
    for images in (dataset, tmp_path):
        widget = explore(made(3, ids=ids), made(3, ids=ids, seed=1), images)
        with Image.open(io.BytesIO(widget._content.picture(0, 30, 80))) as image:
            assert (image.format, image.size) == ("WEBP", (30, 15))
        assert widget._content.picture(2, 30, 80) is None
    assert explore(made(3, ids=ids), made(3, ids=ids), dataset).table["cue"].tolist() == [*"xyx"]


def test_nothing_outside_of_the_folder_is_opened(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for where in (tmp_path / "secret.png", folder / "in.png", folder / "text.png"):
        Image.new("RGB", (8, 8)).save(where)
    (folder / "text.png").write_text("not an image")
    ids = ["in.png", "../secret.png", str(tmp_path / "secret.png"), "text.png", "a\0"]
    found = explore(made(5, ids=ids), made(5, ids=ids, seed=1), folder)._content
    assert [found.picture(row, 64, 80) is not None for row in range(5)] == [True] + [False] * 4


def test_what_cannot_be_shown_is_refused_by_name(tmp_path):
    a, b = made(), made(seed=1, model="vision model")
    table = pd.DataFrame({"x": range(6)}, index=a.ids)
    twice = pd.concat([table, table.iloc[:1]])
    other = made(seed=1, labels=list(CLASSES[1:7]))
    for call, words in (
        (lambda: explore(a, made(5, "B"), {}), r"'VLM' .* 'B' .* test/00005\.png"),
        (lambda: explore(a, b, pictures(a.ids), made(5, "Gate")), r"'Gate'.*test/00005\.png"),
        (lambda: explore(a, other, {}), r"labels of 6 images differ: test/00000\.png"),
        (lambda: explore(a, None, {}), "give Predictions"),
        (lambda: explore(a, b, {}), r"none of the 6 images is in the mapping \(test/00000\.png"),
        (lambda: shown(metadata=twice), r"metadata has 'test/00000\.png' twice"),
        (lambda: shown().to_html(tmp_path / "a.pdf"), r"a\.pdf is no page"),
        (lambda: shown().to_html(tmp_path / "a.html", pictures="x"), "pictures is 'x'"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def scripts(text):
    return re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    text = shown().to_html(tmp_path / "new" / "page.html").read_text("utf-8")
    found = scripts(text)
    assert len(found) == 4 and "connect-src" not in text and "default-src 'none'" in text
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for kind, inside in (("script", found[-1][1]), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in text
    rest = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|<link|@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\b", rest)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_hostile_text_does_not_leave_the_data(tmp_path):
    ids = [HOSTILE, f"{SCRIPT}.png", "\ud800.png", "a\u202egnp.exe"]
    a, b = made(4, SCRIPT, ids=ids), made(4, HOSTILE, ids=ids, seed=1)
    index = pd.Index(ids, dtype=object)  # where pyarrow is, text of pandas holds no lone surrogate
    about = pd.DataFrame({HOSTILE: [SCRIPT, "&amp;", "<b>", "x"]}, index=index)
    widget = explore(a, b, pictures(ids), metadata=about, reasons={HOSTILE: SCRIPT})
    text = widget.to_html(tmp_path / "page.html").read_text("utf-8")
    assert len(scripts(text)) == text.lower().count("<script") == text.lower().count("</script")
    assert "<img" not in text and "&lt;/script&gt;" in text and "&lt;img" in text  # the title
    assert json.loads(scripts(text)[0][1])["ids"] == ids


def test_a_page_opens_with_what_the_widget_shows_or_a_view(tmp_path):
    widget = shown()
    for view, wanted in ((None, "only=4,2"), ("#cell=a", "cell=a"), ("", "")):
        widget.show(["test/00004.png", "test/00002.png"])
        text = widget.to_html(tmp_path / "a.html", view=view).read_text("utf-8")
        assert json.loads(scripts(text)[1][1]) == wanted


def test_pictures_are_as_large_as_fits(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    widget, sizes = shown(16, images=dict.fromkeys(made(16).ids, Image.fromarray(noise))), []
    for limit in (8, 0.3):
        path = widget.to_html(tmp_path / "page.html", max_mb=limit)
        assert path.stat().st_size <= limit * 1e6
        sizes.append(len(json.loads(scripts(path.read_text("utf-8"))[2][1])["inside"][0]))
    assert sizes[0] > 3 * sizes[1]
    with pytest.raises(InputError, match=r"16 pictures do not fit into 0.1 MB: .*'folder'"):
        widget.to_html(tmp_path / "page.html", max_mb=0.1)


def test_pictures_can_lie_beside_the_page_under_names_of_our_own(tmp_path):
    ids = ["../out.png", HOSTILE, "gone.png"]
    widget = explore(made(3, ids=ids), made(3, ids=ids, seed=1), pictures(ids[:2]))
    path = widget.to_html(tmp_path / "my page.html", pictures="folder")
    names = sorted(picture.name for picture in (tmp_path / "my page_pictures").iterdir())
    assert names == ["000000.webp", "000001.webp"]
    where = json.loads(scripts(path.read_text("utf-8"))[2][1])
    assert where == {"folder": "my%20page_pictures"} and json.loads(widget._data)["missing"] == [2]
