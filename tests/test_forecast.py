import json

import numpy as np
import pandas as pd
import pytest
from kept_run import folder_run
from scipy.stats import t

from emokd_utils import forecast as forecasts
from emokd_utils.cli.commands import main
from emokd_utils.errors import InputError
from emokd_utils.evidence import Estimate
from emokd_utils.forecast import BOTH_GAIN, GAIN, LEAD, NOT_WORTH, UNCLEAR, WORTH, Law
from emokd_utils.predictions import Predictions
from emokd_utils.scale import sweep

WIDE = 2 * 1.96
"""Ends of an interval as far apart as this many standard deviations."""


def table_of(leads, gains, deviations=(0.0, 0.0), conditions=None):
    """A sweep's table of one seed a point, with these leads and gains (those of both run: twice)."""
    conditions = conditions or [f"dial {k}" for k in range(len(leads))]
    rows = []
    for k, (condition, *values) in enumerate(zip(conditions, leads, gains, strict=True)):
        for name, value, deviation in (
            (LEAD, values[0], deviations[0]),
            (GAIN, values[1], deviations[1]),
            (BOTH_GAIN, 2 * values[1], deviations[1]),
        ):
            ends = (value - deviation * WIDE / 2, value + deviation * WIDE / 2)
            rows.append((condition, str(k), "key", name, value, *ends, 800, "0"))
    return pd.DataFrame(rows, columns=sweep.COLUMNS)


def sides(n=400, seed=0, classes=4, right=(0.5, 0.7), sure=0.9):
    """Two models that are right on shares of the images, drawn independently of each other."""
    rng = np.random.default_rng(seed)
    labels, made = np.arange(n) % classes, []
    for share in right:
        said = np.where(rng.random(n) < share, labels, (labels + 1) % classes)
        rows = np.full((n, classes), (1 - sure) / (classes - 1))
        rows[np.arange(n), said] = sure
        names = [f"c{k}" for k in range(classes)]
        ids = [f"{k}.png" for k in range(n)]
        made.append(Predictions(ids, ["val"] * n, [names[k] for k in labels], names, rows))
    return made


def test_both_stacked_know_what_each_knows_alone_and_no_more_than_was_held_out():
    rng, n = np.random.default_rng(0), 800
    labels = np.arange(n) % 4
    pairs = np.zeros((2, n, 4)) + 0.01
    for row, label in enumerate(labels):  # A tells the first bit of the class, B the second
        pairs[0, row, [2 * (label // 2), 2 * (label // 2) + 1]] = 0.49
        pairs[1, row, [label % 2, label % 2 + 2]] = 0.49
    known = [f"{k}" for k in range(n)], ["val"] * n, [f"c{k}" for k in labels]
    a, b = (Predictions(*known, ("c0", "c1", "c2", "c3"), rows) for rows in pairs)
    assert forecasts.stacked(a, b).all()
    assert forecasts.lead(a, b).value == pytest.approx(0.5)
    noise = [Predictions(*known, a.classes, rng.dirichlet(np.ones(4), n)) for _ in range(2)]
    assert forecasts.stacked(*noise).mean() == pytest.approx(0.25, abs=0.06)


def test_a_law_on_a_line_is_that_line_and_its_doubt_is_what_images_leave_over():
    leads = np.array([0.0, 0.05, 0.1, 0.2])
    law = Law.learnt(forecasts.leads_and_gains(table_of(leads, 0.02 + 0.5 * leads)))
    assert (law.slope, law.intercept) == pytest.approx((0.5, 0.02))
    assert law.freedom == 2
    assert law.gain(0.3) == pytest.approx(0.17)
    assert law.reach(0.1, 0.0004) == pytest.approx(t.ppf(0.975, 2) * 0.02)
    off = 0.03 * np.array([1, -1, -1, 1])  # of 4 points: a variance of 4 * 0.03 ** 2 / (4 - 2)
    jagged = table_of([-1, -1, 1, 1], off, deviations=(0.5, 0.01))
    law = Law.learnt(forecasts.leads_and_gains(jagged))
    assert law.slope == pytest.approx(0, abs=1e-12)
    assert law.own == pytest.approx(2 * 0.03**2 - 0.01**2)
    assert Law.learnt(forecasts.leads_and_gains(jagged), BOTH_GAIN).own > law.own


def test_how_many_images_would_do_is_where_the_end_reaches_the_margin():
    law = Law(0.5, 0.01, np.zeros((2, 2)), own=0.0001, freedom=10_000)
    lead = Estimate(0.1, 0.1 - 0.1 * WIDE / 2, 0.1 + 0.1 * WIDE / 2, 50)  # one image: 0.01 * 50
    n = law.enough(lead)
    drawn = 0.5**2 * 0.01 * 50
    for count, clear in ((n, True), (n - 1, False)):
        assert (law.gain(0.1) - law.reach(0.1, drawn / count) >= forecasts.MARGIN) == clear
    assert law.enough(lead._replace(value=0.03)) is None


def test_three_sentences():
    assert forecasts.verdict(0.011, 0.5) == WORTH
    assert forecasts.verdict(-0.5, 0.01) == NOT_WORTH
    assert forecasts.verdict(0.0, 0.02) == UNCLEAR


def test_a_forecast_adds_the_expected_gain_to_the_better_model():
    leads = np.linspace(0, 0.3, 12)
    a, b = sides()
    told = forecasts.forecast(a, b, table_of(leads, 0.5 * leads))
    assert told.better.value == b.accuracy
    assert told.gain.value == pytest.approx(told.lead.value / 2)
    assert told.emovlm_kd.value == pytest.approx(b.accuracy + told.lead.value / 2)
    assert told.gate.value == pytest.approx(b.accuracy + told.lead.value)
    spread = 0.5 * (told.lead.high - told.lead.low)
    assert told.gain.high - told.gain.low == pytest.approx(spread, rel=0.25)  # t in place of 1.96
    assert told.verdict in str(told)
    swapped = forecasts.forecast(b, a, table_of(leads, 0.5 * leads))
    assert swapped.better.value == b.accuracy


def test_what_is_too_small_for_a_forecast_is_told():
    a, b = sides(n=18)
    with pytest.raises(InputError, match="5 labelled images each; .* 4 of 'c3'"):
        forecasts.lead(a, b)
    with pytest.raises(InputError, match="images or labels of"):
        forecasts.lead(sides()[0], b)


def test_conditions_are_foretold_from_the_others():
    leads = [0.0, 0.1, 0.2, 0.3, 0.05, 0.25]
    gains = [0.0, 0.1, 0.2, 0.3, 0.25, 0.25]  # the fifth is off the line of the others
    conditions = ["dial", "dial", "one", "two", "odd", "three"]
    table = table_of(leads, gains, (0.001, 0.001), conditions)
    told = forecasts.held_out(table).set_index(["condition", "value"])
    assert told.loc[("odd", "4"), "expected"] == pytest.approx(0.05, abs=1e-6)
    assert not told.loc[("odd", "4"), "covered"]
    others = [k for k in range(6) if conditions[k] != "dial"]
    law = np.polyfit(np.take(leads, others), np.take(gains, others), 1)
    assert told.loc[("dial", "0"), "expected"] == pytest.approx(law[1])
    exact = table_of([0, 0.1, 0.2, 0.3, 0.4], [0, 0.1, -0.05, 0.3, 0.4])
    odd = forecasts.held_out(exact).iloc[2]
    assert (odd["verdict"], odd["wrong"], odd["covered"]) == (WORTH, True, False)


def test_tables_of_any_model_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid,label,calm,tense\n1,calm,0.7,0.299\n2,tense,0.2,0.8\n")
    read = Predictions.read(path)
    assert read.classes == ("calm", "tense")
    assert read.splits == ("val", "val")
    assert read.probabilities[0].tolist() == pytest.approx([0.7 / 0.999, 0.299 / 0.999])
    saved = read.save(tmp_path / "b.csv")
    assert Predictions.read(saved).labels == ("calm", "tense")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id,calm,tense\n1,0.5,0.5\n", "no column 'label'"),
        ("id,label,calm,tense\n1,calm,50,50\n", "probabilities of '1' sum to 100"),
        ("id,label,calm,tense\n1,calm,x,0.5\n", "could not convert"),
        ("id,label,calm,tense\n1,sad,0.5,0.5\n", "a label that is none of calm, tense"),
        ("", "No columns"),
    ],
)
def test_a_table_that_is_none_is_told_with_the_mend(tmp_path, content, says):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(InputError, match="a CSV has the columns id, label") as told:
        Predictions.read(path)
    assert says in str(told.value)
    assert str(path) in str(told.value)


def test_the_command_reads_two_tables_or_a_run(tmp_path, capsys):
    for name, side in zip("ab", sides(), strict=True):
        side.save(tmp_path / f"{name}.csv")
    assert main(["forecast", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]) == 0
    assert "EmoVLM-KD will reach" in capsys.readouterr().out
    assert main(["forecast", str(tmp_path / "a.csv")]) == 2
    assert "or --run NAME" in capsys.readouterr().err
    runs = str(tmp_path / "runs")
    assert main(["forecast", "--run", "mini", "--runs", runs]) == 0  # what came with the course
    assert "n = 400" in capsys.readouterr().out


def test_a_point_gives_its_rows_and_is_made_once(tmp_path, monkeypatch, capsys):
    whole = folder_run(tmp_path, seeds=(0, 1), each=8)
    point = sweep.Point("base", "")
    monkeypatch.setattr(sweep.Point, "run", lambda self, runs: whole)
    rows = sweep.measured(point, tmp_path, (0, 1))
    assert list(rows) == sweep.COLUMNS
    pooled = rows[rows["seeds"] == "0 1"].set_index("quantity")["estimate"]
    alone = rows[rows["seeds"] != "0 1"].set_index(["quantity", "seeds"])["estimate"]
    cells = pooled.filter(like="share ")
    assert cells.sum() == pytest.approx(1)
    sides = [whole.predictions(seed) for seed in (0, 1)]
    only = [s["VLM, tuned"].correct & ~s["vision model"].correct for s in sides]
    assert cells["share only_a"] == pytest.approx(np.mean(only))
    assert pooled["oracle of VLM and vision model"] == pytest.approx(1 - cells["share neither"])
    for seed in (0, 1):
        test = whole.predictions(seed)
        vlm, vision = whole.tuned(seed).split("val"), whole.vision_predictions(seed).split("val")
        name = "VLM, tuned" if vlm.accuracy >= vision.accuracy else "vision model"
        ahead = test["EmoVLM-KD, concat linear"].accuracy - test[name].accuracy
        assert alone[GAIN, str(seed)] == pytest.approx(ahead)
    path = tmp_path / "sweep.csv"
    rows.to_csv(path, index=False)
    there = sweep.kept((0, 1), path)
    assert list(there) == [0]
    pd.testing.assert_frame_equal(
        there[0].reset_index(drop=True), forecasts.sweep_table(path).reset_index(drop=True)
    )
    assert not sweep.kept((0,), path)  # of other seeds
    monkeypatch.setattr(sweep, "points", lambda: iter([point]))
    table = sweep.sweep(tmp_path, (0, 1), 1, path)  # trains nothing, since all is there
    assert len(table) == len(rows)


def test_the_table_that_came_is_that_of_the_stages_as_they_are():
    table = forecasts.sweep_table()
    keys = {point.key((0, 1)) for point in sweep.points()}
    assert set(table["key"]) <= keys, "a stage has changed: python -m emokd_utils sweep"
    assert forecasts.TABLE.stat().st_size < 200_000
    about = json.loads(forecasts.TABLE.with_suffix(".json").read_text())
    assert about["stages"] == sweep.STAGES
