"""Predictions: what follows from probabilities, and a file that gives back exactly what it got."""

import csv
import hashlib
import io
import json

import numpy as np
import pandas as pd
import pytest

from emokd_utils.errors import InputError
from emokd_utils.predictions import Predictions

CLASSES = ("awe", "fear", "joy")
THIRD = [1 / 3, 1 / 3, 1 / 3]


def make(**change) -> Predictions:
    """Four images: right, wrong, invalid (its uniform row would name awe, its label), right."""
    return Predictions(
        **{
            "ids": ("a", "b", "c", "d"),
            "splits": ("val", "test", "test", "val"),
            "labels": ("awe", "fear", "awe", "joy"),
            "classes": CLASSES,
            "probabilities": [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], THIRD, [0.0, 0.0, 1.0]],
            "answers": ("awe", "joy", "a sunset", "joy"),
            "invalid": [False, False, True, False],
            "provenance": {"model": "toy", "seed": 3},
        }
        | change
    )


def assert_same(one: Predictions, two: Predictions) -> None:
    for name in ("ids", "splits", "labels", "classes", "answers", "provenance"):
        assert getattr(one, name) == getattr(two, name), name
    assert one.probabilities.tobytes() == two.probabilities.tobytes()
    assert one.invalid.tolist() == two.invalid.tolist()


def test_what_follows_from_the_probabilities():
    p = make()
    assert p.predicted == ("awe", "joy", None, "joy")
    assert p.predicted_index.tolist() == [0, 2, -1, 2]
    assert p.label_index.tolist() == [0, 1, 0, 2]
    assert p.correct.tolist() == [True, False, False, True] and p.accuracy == 0.5
    assert p.one_hot().tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert p.label_index.dtype == p.predicted_index.dtype == np.int64


def test_nothing_can_be_changed_afterwards():
    given_values = np.full((4, 3), 1 / 3)
    p = make(probabilities=given_values, answers=None, invalid=None)
    assert p.predicted[2] == "awe", "without answers nothing is invalid; the first of equals"
    given_values[0] = [1, 0, 0]
    assert p.probabilities[0].tolist() == THIRD
    with pytest.raises(ValueError, match="read-only"):
        p.probabilities[0, 0] = 1


def test_split_and_select():
    p = make()
    assert p.split("test").ids == ("b", "c") and p.split("test").answers == ("joy", "a sunset")
    some = p.select(["d", "b"])
    assert (some.ids, some.labels, some.splits) == (("d", "b"), ("joy", "fear"), ("val", "test"))
    assert some.probabilities.tolist() == [[0.0, 0.0, 1.0], [0.1, 0.3, 0.6]]
    assert some.provenance == p.provenance and np.isnan(p.select([]).accuracy)
    assert_same(p.aligned(p.select(["d", "c", "b", "a"]))[1], p)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: make(ids=("a", "b", "c", "b")), "'b' comes twice"),
        (lambda p: make(labels=("awe", "fear", "rage", "joy")), "'c' has a label .*: 'rage'"),
        (lambda p: make(classes=("awe", "fear", "joy", "joy")), "different names"),
        (lambda p: make(probabilities=[[0.5, 0.5, 0.1]] + [THIRD] * 3), "'a' has .* the sum 1"),
        (lambda p: make(probabilities=[THIRD, [1.5, -0.5, 0.0]] + [THIRD] * 2), "'b' has .* 0 or"),
        (lambda p: make(probabilities=[THIRD] * 3 + [[np.nan, 0.5, 0.5]]), "'d' has .*nan"),
        (lambda p: make(probabilities=[[1.0, 0.0, 0.0]] * 4), "'c' is invalid, .* not uniform"),
        (lambda p: p.split("train"), "no predictions for split 'train'; there are: test, val"),
        (lambda p: p.select(["a", "x", "y"]), "2 images: x, y"),
        (lambda p: p.select(["a", "a"]), "'a' comes twice"),
        (lambda p: p.aligned(p.select(["a", "d"])), "of 2 images differ: b, c"),
        (lambda p: p.aligned(make(labels=("awe", "joy", "awe", "joy"))), "labels of 1 .*: b"),
        (lambda p: p.aligned(make(classes=("awe", "joy", "fear"))), "classes differ"),
    ],
)
def test_what_does_not_hold_together_or_match_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(make())


def test_to_frame_and_its_csv_without_this_project(tmp_path):
    frame = make().to_frame()
    start = ["split", "label", "predicted", "correct", "p_awe", "p_fear", "p_joy"]
    assert list(frame.columns) == [*start, "answer", "invalid"]
    assert frame.loc["b", "p_joy"] == 0.6 and pd.isna(frame.loc["c", "predicted"])
    assert make(answers=None, invalid=None).to_frame()["answer"].isna().all()
    again = pd.read_csv(make().save(tmp_path / "p.csv"), index_col="id")
    columns = ["split", "correct", "p_awe", "answer", "invalid"]
    assert again[columns].to_numpy().tolist() == frame[columns].to_numpy().tolist()


NASTY = [
    *("=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "fine\n=1"),
    *("'quoted'", "''", 'say "hi", then; go', "\\n is not a newline", "\\", "\x00\x1a\x7f"),
    *("\u202egnp.exe", "\ufeff=1", "\uff1d1", "\ud800", "NA", "nan", "", "Ärger 😀"),
]


def with_answers(answers: list[str]) -> Predictions:
    n = len(answers)
    values = np.random.default_rng(0).dirichlet(np.ones(3), n)
    of_each = {"ids": [f"{i}.png" for i in range(n)], "splits": ["=x"] * n, "labels": ["awe"] * n}
    return make(**of_each, probabilities=values, answers=answers, invalid=None)


NAMES = ("=1+1", "-fear", 'a,"b"')
UNTRUSTED = make(ids=("@a", "'b", "c\nd", "\ud800"), classes=NAMES, labels=NAMES[:1] * 4)


@pytest.mark.parametrize(
    "p", [make(), make(answers=None), make().select([]), with_answers(NASTY), UNTRUSTED]
)
def test_round_trip_by_way_of_a_spreadsheet(tmp_path, p):
    path = tmp_path / "new" / "p.csv"
    assert p.save(path) == path
    assert_same(Predictions.load(path), p)
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf"), "Excel knows UTF-8 by its byte-order mark"
    assert content.count(b"\n") == len(p) + 1 and b"\r" not in content
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    assert not [cell for row in rows for cell in row if cell.strip()[:1] in tuple("=+-@\uff1d")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.7,", "0.9,", "'a' has probabilities"),
        ("0.7,", "high,", "could not convert"),
        ("b,test", "a,test", "'a' comes twice"),
        ("val,awe,", "val,rage,", "a label that is none of"),
        ("answer", "answers", "answer"),
    ],
)
def test_load_checks_the_table(tmp_path, old, new, message):
    path = make().save(tmp_path / "p.csv")
    path.write_text(path.read_text("utf-8-sig").replace(old, new, 1), "utf-8-sig")
    with pytest.raises(InputError, match="is not the file that was saved"):
        Predictions.load(path)
    about = json.loads(path.with_suffix(".json").read_text())
    about["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=f"p.csv: .*{message}"):
        Predictions.load(path)


def test_load_checks_the_json_and_names_what_is_missing(tmp_path):
    path = make().save(tmp_path / "p.csv")
    about = json.loads(path.with_suffix(".json").read_text())
    changes = ({"format": "other"}, {"classes": 3}, {"classes": ["awe", "fear"]})
    for content in ("", "[1]", *(json.dumps(about | change) for change in changes)):
        path.with_suffix(".json").write_text(content)
        with pytest.raises(InputError, match=r"p\.csv: .*json anew"):
            Predictions.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"No such file.*p\.json"):
        Predictions.load(path)
    with pytest.raises(InputError, match=r"ends in \.csv"):
        make().save(tmp_path / "p.xlsx")
