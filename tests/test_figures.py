"""Figures: what they show and say, not pixels."""

from functools import partial
from types import SimpleNamespace

import kept_run
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer
from PIL import Image

from emokd_utils import figures
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.evidence import wilson
from emokd_utils.predictions import BOTH_RUN, HEAD, ORACLE, TUNED, VISION, ZERO_SHOT, Predictions

CLASSES = ("anger", "fear", "joy")
made = partial(kept_run.made, confidence=0.8, classes=CLASSES)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def right_where(right, **other):
    """Predictions that are right on these images; every label is 'fear'."""
    return made(["fear" if r else "joy" for r in right], ["fear"] * len(right), **other)


def pair(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return right_where(a), right_where(b)


def said(texts):
    return [text.get_text().replace("\u00a0", " ") for text in texts]


def legend(ax):
    return said(ax.get_legend().get_texts())


def words(drawn):
    return figures.alt_text(drawn).replace("\u00a0", " ")


def test_models_have_the_colour_of_their_family_and_the_weaker_ones_tints():
    names = [ZERO_SHOT, TUNED, VISION, "head, no teacher", HEAD, "EmoVLM-KD, concat linear"]
    names += ["EmoVLM-KD, bilinear", "guess", "other"]
    colours = figures.model_colours(names)
    assert colours[TUNED] == figures.MODEL_COLOURS["VLM"]
    assert colours[HEAD] == figures.MODEL_COLOURS["head"]
    assert colours["EmoVLM-KD, concat linear"] == figures.MODEL_COLOURS["EmoVLM-KD"]
    assert set(colours) == set(names) and len(set(colours.values())) == len(names)
    assert figures.class_colours(("sad", "joy"))["sad"] == MIKELS.colours["sadness"]


def test_four_way_areas_are_the_shares_and_the_legend_has_counts_and_intervals():
    ax = figures.four_way_map(*pair(34, 21, 28, 17), ("VLM", "vision model"))
    areas = [cell.get_width() * cell.get_height() for cell in ax.patches]
    assert areas == pytest.approx([0.34, 0.21, 0.28, 0.17])
    low, high = wilson(21, 100)
    assert f"only VLM\n21 images, 21.0 % [{100 * low:.1f}, {100 * high:.1f}]" in legend(ax)
    assert {"34 %", "21 %", "28 %", "17 %"} < set(said(ax.texts))
    assert said(ax.get_xticklabels()) == ["VLM: right 55 %", "VLM: wrong 45 %"]
    assert "only vision model 28 images" in words(ax) and "either right): 83 %" in words(ax)


def test_confusion_shows_the_share_of_each_label_and_nothing_where_there_is_none():
    labels = ["anger"] * 4 + ["fear"] * 4
    ax = figures.confusion(made(["anger", "fear", "fear", "fear", *["fear"] * 4], labels), "VLM")
    assert said(ax.get_xticklabels()) == list(CLASSES)
    assert said(ax.get_yticklabels()) == ["anger (4)", "fear (4)", "joy (0)"]
    shown = ax.collections[0].get_array()
    assert shown.filled(0).tolist() == [[25, 75, 0], [0, 100, 0], [0, 0, 0]]
    assert {"25", "75", "100"} <= set(said(ax.texts)) and "0" not in said(ax.texts)
    assert "anger (4): 25 % anger, 75 % fear" in words(ax) and "joy (0): no images" in words(ax)
    assert "right: 62 % [31, 86]" in words(ax)


def test_confusion_counts_invalid_answers_in_a_column_of_their_own():
    predicted = made(["anger", "", "", "fear"], ["anger", "anger", "anger", "fear"])
    left, right = figures.confusion_pair(predicted, made(["joy"] * 4, predicted.labels), ("A", "B"))
    assert said(left.get_xticklabels()) == [*CLASSES, "no label"]
    assert said(right.get_xticklabels()) == list(CLASSES)
    assert "67 % no label" in words(left)
    assert words(left.figure).startswith("A. ") and " B. anger (3): 100 % joy" in words(left.figure)


def test_cue_bars_are_the_accuracies_in_the_cues_order_matched_by_id():
    cues = ["both"] * 10 + ["content"] * 10 + ["atmosphere"] * 20
    cue = pd.Series(cues, index=[f"{k}.png" for k in range(40)], name="cue")
    vlm = right_where([True] * 10 + [True] * 8 + [False] * 2 + [True] * 2 + [False] * 18)
    cnn = right_where([True] * 9 + [False] + [False] * 7 + [True] * 3 + [True] * 16 + [False] * 4)
    models = {"VLM": vlm, "vision model": cnn.select(cnn.ids[::-1])}
    ax = figures.cue_bars(models, cue)
    bars = [c.datavalues.tolist() for c in ax.containers if isinstance(c, BarContainer)]
    assert bars == [pytest.approx([80, 10, 100]), pytest.approx([30, 80, 90])]
    assert said(ax.get_xticklabels()) == ["content\nn = 10", "atmosphere\nn = 20", "both\nn = 10"]
    assert ax.get_xlabel() == "cue" and ax.get_ylabel() == "accuracy (%)"
    assert set(legend(ax)) == {"VLM", "vision model", "chance 33.3 %"}
    low, high = wilson(8, 10)
    assert f"VLM: content 80 % [{100 * low:.0f}, {100 * high:.0f}]" in words(ax)
    (whisker, *_) = ax.collections[0].get_segments()
    assert whisker[:, 1] == pytest.approx([100 * low, 100 * high])
    with pytest.raises(InputError, match=r"no value for 1 images, 0\.png"):
        figures.cue_bars(models, cue.iloc[1:])


def results(**changed):
    accuracy = {ZERO_SHOT: 0.2, TUNED: 0.54, VISION: 0.6, HEAD: 0.66}
    accuracy |= {"EmoVLM-KD, concat linear": 0.7, BOTH_RUN: 0.75, ORACLE: 0.8}
    accuracy = pd.Series(accuracy | changed)
    return pd.DataFrame({"accuracy": accuracy, "low": accuracy - 0.03, "high": accuracy + 0.03})


def test_oracle_gap_starts_at_the_better_single_model_and_not_at_the_head():
    ax = figures.oracle_gap(results(), n=1200)
    assert said(ax.get_yticklabels()) == list(results()["accuracy"].sort_values().index)
    assert {"70.0 %, 50 % of the gap", "75.0 %, 75 % of the gap", "66.0 %"} < set(said(ax.texts))
    assert ax.patches[0].get_x() == pytest.approx(60)
    assert ax.patches[0].get_width() == pytest.approx(20)
    dots = [container.lines[0].get_xdata()[0] for container in ax.containers]
    assert dots == pytest.approx([20, 54, 60, 66, 70, 75, 80])
    assert "vision model 60.0 % [57.0, 63.0]" in words(ax) and "n = 1,200 images" in words(ax)
    same = figures.oracle_gap(results(**{ORACLE: 0.6}), n=9)
    assert "no gap" in words(same) and "% of the gap" not in words(same)


def test_sweep_draws_the_mean_over_seeds_with_its_t_interval():
    means = {1: 0.6, 2: 0.64, 8: 0.62}
    rows = [(at, k, mean + 0.01 * (k - 1)) for at, mean in means.items() for k in range(3)]
    table = pd.DataFrame(rows, columns=["temperature", "seed", "accuracy"])
    ax = figures.sweep(table, "temperature", n=1200)
    assert ax.lines[0].get_ydata() == pytest.approx([60, 64, 62])
    # Standard deviation 0.01, three seeds: 4.3027 * 0.01 / sqrt(3) = 0.02484.
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(64 + 2.484, abs=0.01)
    assert band[:, 1].min() == pytest.approx(60 - 2.484, abs=0.01)
    assert said(ax.get_xticklabels()) == ["1", "2", "8"] and ax.get_xscale() == "log"
    assert "temperature 2: 64.0 % [61.5, 66.5]" in words(ax) and "mean of 3 seeds" in words(ax)
    alone = figures.sweep(table[table["seed"] == 0], "temperature", n=10)
    assert "temperature 1: 59.0 %; " in words(alone) and "band" not in words(alone)


def test_gate_weights_have_a_histogram_and_a_mean_a_slice():
    vlm = np.array([0.9, 0.7, 0.2, 0.4, 1.0])
    cue = pd.Series(["content", "content", "atmosphere", "atmosphere", "both"], index=[*"abcde"])
    ax = figures.gate_weights(np.column_stack([1 - vlm, vlm]), cue)
    assert said(ax.get_yticklabels()) == ["content\nn = 2", "atmosphere\nn = 2", "both\nn = 1"]
    means = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert means == pytest.approx([80, 30, 100])
    assert "mean 100 %" in said(ax.texts) and "0: head alone" in ax.get_xlabel()
    every = figures.gate_weights(np.full((4, 2), 0.5), pd.Series(["all"] * 4))
    assert "all (n = 4) mean 50 % [50, 50]" in words(every)


def test_cost_accuracy_names_every_point_with_its_cost():
    table = results().loc[[TUNED, "EmoVLM-KD, concat linear", BOTH_RUN]]
    ax = figures.cost_accuracy(table.assign(**{"added parameters": [0, 272_016, 4_914_032]}), n=9)
    dots = [container.lines[0].get_xydata()[0] for container in ax.containers]
    assert np.array(dots) == pytest.approx(np.array([[4_914_032, 75], [272_016, 70], [0, 54]]))
    assert f"{BOTH_RUN}\n75.0 %, 4.91 M added parameters" in legend(ax)
    assert "VLM, tuned 54.0 % [51.0, 57.0] for 0 added parameters" in words(ax)


def test_calibration_and_ece_against_numbers_worked_out_by_hand():
    rows = [[0.95, 0.05], [0.91, 0.09], [0.62, 0.38], [0.5, 0.5], [1.0, 0.0]]
    labels, invalid = ["yes", "no", "yes", "no", "yes"], np.arange(5) == 3
    of = {"labels": labels, "classes": ("yes", "no"), "probabilities": np.array(rows)}
    predictions = Predictions([*"abcde"], ["test"] * 5, invalid=invalid, **of)
    table = figures.calibration(predictions, 10)
    assert table["n"].tolist() == [1, 3]
    assert table["lower"].tolist() == pytest.approx([0.6, 0.9])
    assert table["confidence"].tolist() == pytest.approx([0.62, 2.86 / 3])
    assert table["accuracy"].tolist() == pytest.approx([1, 2 / 3])
    # (1 * |1 - 0.62| + 3 * |2/3 - 2.86/3|) / 4
    assert figures.expected_calibration_error(predictions) == pytest.approx((0.38 + 0.86) / 4)


def test_reliability_shows_each_bin_and_leaves_invalid_answers_out():
    ax = figures.reliability(right_where([True] * 50 + [False] * 50, confidence=0.9), "VLM")
    assert "says 90 % on average, right: 50 % [40, 60]; ECE 0.40" in words(ax)
    assert [bar.get_height() for bar in ax.patches] == [100] and "100" in said(ax.texts)
    fair = made(["fear", "fear", "joy", "joy", ""], ["fear"] * 5, confidence=0.5)
    assert "n = 4 images" in words(figures.reliability(fair))
    assert "1 invalid answers left out" in words(figures.reliability(fair))
    assert np.isnan(figures.expected_calibration_error(made(["", ""], ["fear", "joy"])))


def test_the_style_is_undone_and_names_are_not_read_as_formulas():
    before, ax = plt.rcParams["axes.titlesize"], plt.subplots(1, 2)[1][0]
    assert figures.four_way_map(*pair(3, 2, 2, 3), ("$x^2$ model", "a_b $\\frac$ c"), ax=ax) is ax
    assert plt.rcParams["axes.titlesize"] == before and len(plt.get_fignums()) == 1
    ax.figure.draw_without_rendering()
    assert "only $x^2$ model 2 images" in words(ax)
    labels = ["$\\bad{$", "b"] * 2
    odd = made(labels[::-1], labels, classes=("$\\bad{$", "b"))
    figures.confusion(odd).figure.draw_without_rendering()


def test_pictures_and_maps_have_a_caption_each_and_say_so_in_words():
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    first = figures.pictures(images, ["is anger\nsays $ awe", "b", "c"], "Three colours", columns=2)
    assert [ax.get_xlabel() for ax in first.figure.axes] == ["is anger\nsays $ awe", "b", "c", ""]
    assert words(first.figure) == "Three colours. 3 pictures. is anger says $ awe; b; c."
    maps, kinds = {}, [("occlusion", 0.1), ("occlusion", -0.4), ("attention", 1 / 64)]
    for name, (method, value) in zip(("VLM", "CNN", "read"), kinds, strict=True):
        values = np.full((8, 8), value)
        parts = {"values": values, "method": method, "on_pixels": lambda w, h, v=values: v}
        maps[name] = SimpleNamespace(label="fear", **parts)
    axes = figures.explanations(images[0], maps, {"coffin": (1, 2, 3, 4)})
    shades = [ax.images[1].get_array()[0, 0, 3] for ax in axes[1:]]
    assert shades == pytest.approx([0.85 / 4, 0.85, 0.85]), "one scale for occlusion"
    assert axes[1].patches[0].get_bbox().bounds == (0.5, 1.5, 3, 4)
    assert "CNN: fear falls by -40 to -40 points" in words(axes[0])


def test_save_writes_the_same_bytes_again_with_the_alt_text_inside(tmp_path):
    ax = figures.four_way_map(*pair(34, 21, 28, 17), ("A", "B"))
    first = figures.save(ax, tmp_path / "new" / "map.png")
    again = figures.four_way_map(*pair(34, 21, 28, 17), ("A", "B")).figure
    assert first.read_bytes() == figures.save(again, tmp_path / "again.png").read_bytes()
    with Image.open(first) as image:
        assert set(image.info) <= {"Description", "dpi"} and image.width > 1000
        assert image.info["Description"] == figures.alt_text(ax)


def test_show_displays_the_figure_with_its_words_and_nothing_that_acts(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    figure, ax = plt.subplots()
    figures.show(ax, alt='a "quoted" <b>word</b>')
    assert shown[0]["text/plain"] == 'a "quoted" <b>word</b>'
    assert 'alt="a &quot;quoted&quot; &lt;b&gt;word' in shown[0]["text/html"]
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: figures.four_way_map(*pair(0, 0, 0, 0), ("A", "B")), "share no images"),
        (lambda: figures.confusion(made([], [])), "have no images"),
        (lambda: figures.reliability(made(["", ""], ["fear", "joy"])), "no answer names a class"),
        (lambda: figures.pictures([], []), "0 images"),
        (lambda: figures.explanations(Image.new("L", (2, 2)), {}), "no maps"),
        (lambda: figures.show(plt.figure()), "draw it first"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, told):
    with pytest.raises(InputError, match=told):
        draw()
