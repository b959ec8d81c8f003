"""Figures: what they say and how much of it, not pixels."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from emokd_utils import figures
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.evidence import wilson
from emokd_utils.figures import plots as figure_plots
from emokd_utils.predictions import Predictions

CLASSES = ("anger", "fear", "joy")
# Machado, Oliveira & Fernandes 2009 (doi 10.1109/TVCG.2009.113), severity 1, linear RGB.
VISION = {
    "typical": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def made(predicted, labels, model="VLM", confidence=0.8, classes=CLASSES, splits="test"):
    """Predictions of these classes ('' for an invalid answer), all equally confident."""
    rest = (1 - confidence) / (len(classes) - 1)
    rows = [
        [1 / len(classes)] * len(classes)
        if name == ""
        else [confidence if name == other else rest for other in classes]
        for name in predicted
    ]
    return Predictions(
        ids=[f"{splits}/{k}.png" for k in range(len(labels))],
        splits=[splits] * len(labels),
        labels=labels,
        classes=classes,
        probabilities=np.array(rows).reshape(len(labels), len(classes)),
        invalid=[name == "" for name in predicted],
        provenance={"model": model},
    )


def right_where(right, model="VLM", **other):
    """Predictions that are right on these images; every label is 'fear'."""
    return made(
        ["fear" if is_right else "joy" for is_right in right], ["fear"] * len(right), model, **other
    )


def pair(both, only_a, only_b, neither, names=("VLM", "vision model")):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return right_where(a, names[0]), right_where(b, names[1])


def title(ax):
    return " ".join(ax.get_title(loc="left").split())


def texts(ax):
    return [" ".join(text.get_text().split()) for text in ax.texts]


def ticks(axis):
    return [" ".join(tick.get_text().split()) for tick in axis.get_ticklabels()]


def cells(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def overlaps(boxes):
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if figure_plots._shared(a, b) > 1]


# ------------------------------------------------------------------------------------------- style


def lab(rgb):
    """CIE L*a*b* of linear RGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def linear(colour):
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("vision", VISION)
def test_the_four_models_stay_apart_for_colour_blind_readers_and_from_white(vision):
    names = ("VLM", "vision model", "head", "EmoVLM-KD")
    shades = [linear(figures.MODEL_COLOURS[name]) for name in names]
    seen = [lab(np.array(VISION[vision]) @ shade) for shade in shades]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15
    for shade in shades:
        assert 1.05 / (0.05 + shade @ [0.2126, 0.7152, 0.0722]) > 2.9


def test_models_have_the_colour_of_their_family_and_the_weaker_ones_tints():
    names = ["VLM, zero-shot", "VLM, tuned", "vision model", "head, no teacher", "head, distilled"]
    names += ["EmoVLM-KD, concat linear", "EmoVLM-KD, bilinear", "guess", "other"]
    colours = figures.model_colours(names)
    assert list(colours) == names
    assert colours["VLM, tuned"] == figures.MODEL_COLOURS["VLM"]
    assert colours["head, distilled"] == figures.MODEL_COLOURS["head"]
    assert colours["EmoVLM-KD, concat linear"] == figures.MODEL_COLOURS["EmoVLM-KD"]
    assert len(set(colours.values())) == len(names)


def test_classes_have_the_colours_of_their_label_set():
    assert figures.class_colours(MIKELS.labels) == MIKELS.colours
    assert figures.class_colours(("sad", "content"))["sad"] == MIKELS.colours["sadness"]
    assert len(figures.class_colours(("a", "b", "c"))) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("VLM", "the VLM"),
        ("VLM, tuned", "the tuned VLM"),
        ("head, no teacher", "the head without a teacher"),
        ("EmoVLM-KD, bilinear", "EmoVLM-KD, bilinear"),
        ("ViT", "ViT"),
    ],
)
def test_titles_name_models_as_a_sentence_does(name, words):
    ax = figures.four_way_map(*pair(3, 2, 2, 3), names=("other", name))
    assert title(ax).endswith(f"{words} alone 20 %")


def test_style_is_undone_and_figures_have_it_without_being_asked():
    before = plt.rcParams["axes.titlesize"]
    ax = figures.four_way_map(*pair(2, 2, 2, 2))
    assert plt.rcParams["axes.titlesize"] == before
    assert ax.title.get_fontsize() != 0
    assert ax._left_title.get_fontsize() == figures.STYLE["axes.titlesize"]
    with figures.style():
        assert plt.rcParams["axes.titlesize"] == figures.STYLE["axes.titlesize"]


# ------------------------------------------------------------------------- where two models disagree


def test_four_way_areas_are_the_shares_and_the_title_says_who_is_right_alone():
    ax = figures.four_way_map(*pair(34, 21, 28, 17))
    areas = [cell.get_width() * cell.get_height() for cell in cells(ax)]
    assert areas == pytest.approx([0.34, 0.21, 0.28, 0.17])
    assert title(ax) == (
        "Right on different images: the VLM alone has 21 %, the vision model alone 28 %"
    )
    low, high = wilson(21, 100)
    assert f"only VLM 21 21.0 % [{100 * low:.1f}, {100 * high:.1f}]" in texts(ax)
    assert any(
        text.startswith("n = 100 test images; oracle (either right): 83 %") for text in texts(ax)
    )
    assert ticks(ax.xaxis) == ["VLM: right 55 %", "VLM: wrong 45 %"]
    assert "%" in ax.get_xlabel() and "%" in ax.get_ylabel()


@pytest.mark.parametrize(
    ("counts", "start", "shown"),
    [
        ((80, 5, 8, 7), "Mostly right on the same images: the VLM alone has 5 %", 4),
        ((60, 0, 20, 20), "Right alone: the VLM never is, the vision model alone has 20 %", 3),
        ((60, 20, 0, 20), "Right alone: the vision model never is, the VLM alone has 20 %", 3),
        ((60, 0, 0, 40), "Right on the same images: neither model is ever right alone", 2),
        ((0, 0, 0, 3), "Neither model is right on any image", 1),
        ((5, 0, 0, 0), "Right on the same images", 1),
        ((970, 10, 12, 8), "Mostly right on the same images", 4),
    ],
)
def test_four_way_labels_never_overlap_and_each_cell_has_one(counts, start, shown):
    ax = figures.four_way_map(*pair(*counts))
    assert title(ax).startswith(start)
    assert len(cells(ax)) == shown
    names = ("both right", "only VLM", "only vision model", "neither")
    labels = [text for text in ax.texts if text.get_text().startswith(names)]
    assert len(labels) == 4
    assert not overlaps([text.get_window_extent() for text in ax.texts])
    frame = ax.get_window_extent()
    for label in labels:
        box = label.get_window_extent()
        assert frame.y0 - 12 <= box.y0 and box.y1 <= frame.y1 + 12


def test_four_way_takes_booleans_and_own_names_and_refuses_no_images():
    a, b = np.array([True, True, False]), np.array([False, True, True])
    ax = figures.four_way_map(a, b)
    assert "only A 1 33.3 %" in " ".join(texts(ax))
    assert "only ViT" in " ".join(texts(figures.four_way_map(a, b, ("ViT", "CNN"))))
    with pytest.raises(InputError, match="share no images"):
        figures.four_way_map(a[:0], b[:0])


def test_confusion_shows_shares_of_each_label_and_names_the_commonest_error():
    labels = ["anger"] * 4 + ["fear"] * 4
    ax = figures.confusion(made(["anger", "fear", "fear", "fear", *["fear"] * 4], labels))
    assert ticks(ax.xaxis) == list(CLASSES)
    assert ticks(ax.yaxis) == ["anger (4)", "fear (4)", "joy (0)"]
    shown = ax.collections[0].get_array()
    assert shown[0].tolist() == [25, 75, 0]
    assert shown.mask.all(axis=1).tolist() == [False, False, True]
    assert title(ax) == "VLM: 62 % right; anger is most often taken for fear (75 % of 4)"
    assert {"25", "75", "100"} <= set(texts(ax))
    assert any("n = 8 test images; accuracy [31, 86] %" in text for text in texts(ax))


def test_confusion_counts_invalid_answers_in_a_column_of_their_own():
    predicted = made(["anger", "", "", "fear"], ["anger", "anger", "anger", "fear"])
    ax = figures.confusion(predicted, name="tuned VLM")
    assert ticks(ax.xaxis) == [*CLASSES, "no label"]
    assert title(ax) == "tuned VLM: 50 % right"
    assert any("2 answers name no label" in text for text in texts(ax))
    assert "67 % no label" in figures.alt_text(ax)


def test_confusion_pair_has_the_same_columns_and_a_title_over_both():
    labels = ["anger", "anger", "fear", "fear"]
    a = made(["anger", "anger", "", "fear"], labels)
    b = made(["fear", "fear", "fear", "fear"], labels, "vision model")
    left, right = figures.confusion_pair(a, b)
    assert ticks(left.xaxis) == ticks(right.xaxis) == [*CLASSES, "no label"]
    figure = left.get_figure()
    expected = "They differ most on anger: the VLM is right on 100 %, the vision model on 0 %"
    assert " ".join(figure.get_suptitle().split()) == expected
    assert figures.alt_text(figure).startswith(expected + ". VLM: 75 % right")
    own = plt.subplots(1, 2)[1]
    assert figures.confusion_pair(a, b, axes=own) == tuple(own)
    assert own[0].get_figure().get_suptitle() == ""


def cue_example():
    cue = pd.Series(
        ["both"] * 10 + ["content"] * 10 + ["atmosphere"] * 20,
        index=[f"test/{k}.png" for k in range(40)],
        name="cue",
    )
    vlm = right_where([True] * 10 + [True] * 8 + [False] * 2 + [True] * 2 + [False] * 18)
    cnn = right_where([True] * 9 + [False] + [False] * 7 + [True] * 3 + [True] * 16 + [False] * 4)
    return {"VLM": vlm, "vision model": cnn}, cue


def test_cue_bars_are_the_accuracies_in_the_cues_order():
    models, cue = cue_example()
    ax = figures.cue_bars(models, cue)
    assert [bar.get_height() for bar in cells(ax)] == pytest.approx([80, 10, 100, 30, 80, 90])
    assert ticks(ax.xaxis) == ["content n = 10", "atmosphere n = 20", "both n = 10"]
    assert ax.get_xlabel() == "cue" and ax.get_ylabel() == "accuracy (%)"
    assert title(ax) == (
        "Best on content: VLM (80 %); on atmosphere: vision model (80 %); on both: VLM (100 %)"
    )
    assert set(legend(ax)) == {"VLM", "vision model", "chance 33.3\u00a0%"}
    assert {"80", "10", "100", "30", "90"} <= set(texts(ax))
    low, high = wilson(8, 10)
    assert f"VLM: content 80 % [{100 * low:.0f}, {100 * high:.0f}]" in figures.alt_text(ax)


def test_cue_bars_match_images_by_id_and_say_what_is_missing():
    models, cue = cue_example()
    shuffled = models["vision model"].select(models["vision model"].ids[::-1])
    ax = figures.cue_bars({"VLM": models["VLM"], "vision model": shuffled}, cue)
    assert [bar.get_height() for bar in cells(ax)] == pytest.approx([80, 10, 100, 30, 80, 90])
    with pytest.raises(InputError, match="no value for 1 images, test/0.png"):
        figures.cue_bars(models, cue.iloc[1:])
    with pytest.raises(InputError, match="no predictions"):
        figures.cue_bars({}, cue)


def test_cue_bars_of_one_model_and_of_a_categorical_in_its_own_order():
    models, cue = cue_example()
    ordered = cue.astype(pd.CategoricalDtype(["atmosphere", "both", "content", "none"]))
    ax = figures.cue_bars({"VLM": models["VLM"]}, ordered)
    assert ticks(ax.xaxis) == ["atmosphere n = 20", "both n = 10", "content n = 10"]
    assert title(ax) == "VLM does best on both (100 %), worst on atmosphere (10 %)"
    best = figures.cue_bars({"VLM": models["VLM"], "head": right_where([False] * 40)}, cue)
    assert title(best).startswith("VLM is best on every slice: content 80 %")


# -------------------------------------------------------------------------------- what the gate wins


def results():
    table = pd.DataFrame(
        {"accuracy": [0.2, 0.54, 0.6, 0.66, 0.7, 0.69, 0.75, 0.8]},
        index=[
            "VLM, zero-shot",
            "VLM, tuned",
            "vision model",
            "head, distilled",
            "EmoVLM-KD, concat linear",
            "EmoVLM-KD, bilinear",
            "both models run together",
            "oracle of VLM and vision model",
        ],
    )
    return table.assign(low=table["accuracy"] - 0.03, high=table["accuracy"] + 0.03, n=1200)


def test_oracle_gap_starts_at_the_better_single_model_and_not_at_the_head():
    ax = figures.oracle_gap(results())
    assert title(ax) == (
        "EmoVLM-KD recovers 50 % of the gap from the vision model (60.0 %) to the oracle (80.0 %)"
    )
    assert ticks(ax.yaxis) == list(results()["accuracy"].sort_values().index)
    assert "70.0 %, 50 % of the gap" in texts(ax)
    assert "75.0 %, 75 % of the gap" in texts(ax)
    assert "66.0 %" in texts(ax)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert sorted(dot.get_xdata()[0] for dot in dots) == pytest.approx(
        [20, 54, 60, 66, 69, 70, 75, 80]
    )
    assert "n = 1,200 images; shaded: the gap; lines: 95 % intervals" in texts(ax)
    assert ax.get_xlabel() == "accuracy (%)"


def test_oracle_gap_takes_a_dict_with_or_without_intervals():
    numbers = {"VLM": 0.5, "vision model": (0.6, 0.57, 0.63), "EmoVLM-KD": 0.58, "oracle": 0.8}
    ax = figures.oracle_gap(numbers, n=100)
    assert title(ax).startswith("EmoVLM-KD recovers none of the gap from the vision model")
    assert "vision model 60.0 % [57.0, 63.0]" in figures.alt_text(ax)
    same = figures.oracle_gap({"VLM": 0.5, "EmoVLM-KD": 0.5, "oracle": 0.5}, n=9)
    assert title(same) == "No gap to win: the oracle is no better than the VLM (50.0 %)"
    own = {"ViT": 0.6, "Qwen": 0.5, "EmoVLM-KD": 0.7, "oracle": 0.8}
    assert "from ViT (60.0 %)" in title(figures.oracle_gap(own, n=9, singles=["ViT", "Qwen"]))


@pytest.mark.parametrize(
    ("table", "n", "words"),
    [
        ({"VLM": 0.5, "oracle": 0.8}, 9, "EmoVLM-KD"),
        ({"VLM": 0.5, "EmoVLM-KD": 0.6, "oracle": 0.8}, None, "how many images"),
        ({"VLM": 50, "EmoVLM-KD": 60, "oracle": 80}, 9, "share in 0..1"),
        ({}, 9, "no rows"),
        (pd.DataFrame({"score": [1.0]}, index=["VLM"]), 9, "no column accuracy"),
    ],
)
def test_oracle_gap_says_what_it_needs(table, n, words):
    with pytest.raises(InputError, match=words):
        figures.oracle_gap(table, n=n)


def runs():
    rows = [
        {"temperature": t, "alpha": alpha, "seed": seed, "accuracy": value + 0.01 * (seed - 1)}
        for alpha, values in ((0.5, (0.6, 0.64, 0.62)), (0.9, (0.61, 0.66, 0.6)))
        for t, value in zip((1, 2, 8), values, strict=True)
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


def test_sweep_draws_the_mean_over_seeds_with_its_t_interval():
    ax = figures.sweep(runs(), group="alpha", n=1200)
    assert legend(ax) == ["alpha 0.5", "alpha 0.9"]
    assert ax.lines[0].get_ydata() == pytest.approx([60, 64, 62])
    assert len(ax.collections) == 2
    # Standard deviation 0.01, three seeds: 4.3027 * 0.01 / sqrt(3) = 0.02484.
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(64 + 2.484, abs=0.01)
    assert band[:, 1].min() == pytest.approx(60 - 2.484, abs=0.01)
    assert (
        title(ax) == "Best at temperature 2, alpha 0.9: accuracy 66.0 %, 6.0 points above the worst"
    )
    assert "n = 1,200 images; mean of 3 seeds; band: 95 % interval over seeds" in texts(ax)
    assert ticks(ax.xaxis) == ["1", "2", "8"]
    assert ax.get_ylabel() == "accuracy (%)"


def test_sweep_of_one_seed_has_no_band_and_says_so_by_leaving_it_out():
    one = runs().query("seed == 0 and temperature == 2").assign(n=10)
    ax = figures.sweep(one, x="alpha")
    assert title(ax).startswith("Best at alpha 0.9: accuracy 65.0 %")
    assert "n = 10 images; mean of 1 seed" in texts(ax)
    assert ax.get_legend() is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (runs().drop(columns="alpha"), "no column alpha"),
        (runs().iloc[:0], "no rows"),
        (runs().assign(accuracy=60.0), "shares in 0..1"),
        (runs().assign(temperature="hot"), "temperature must be numbers"),
    ],
)
def test_sweep_says_what_it_needs(table, words):
    with pytest.raises(InputError, match=words):
        figures.sweep(table, group="alpha", n=5)


def test_gate_weights_have_a_histogram_a_slice_and_name_the_extremes():
    vlm = np.array([0.9, 0.7, 0.2, 0.4, 1.0])
    cue = pd.Series(["content", "content", "atmosphere", "atmosphere", "both"], index=[*"abcde"])
    ax = figures.gate_weights(np.column_stack([1 - vlm, vlm]), cue, bins=10)
    assert len(cells(ax)) == 3 * 10
    assert ticks(ax.yaxis) == ["content n = 2", "atmosphere n = 2", "both n = 1"]
    assert title(ax) == (
        "The gate leans on the VLM most for both (100 % of the say), least for atmosphere (30 %)"
    )
    means = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "D"]
    assert means == pytest.approx([0.8, 0.3, 1.0])
    assert ax.get_xlim() == (0, 1)
    assert "mean 1.00" in texts(ax)
    assert "0: head alone, 1: VLM alone" in ax.get_xlabel()


def test_gate_weights_of_all_images_and_of_equal_values():
    ax = figures.gate_weights(np.full((4, 2), 0.5))
    assert title(ax) == "The gate gives the VLM 50 % of the say on average"
    assert "mean 0.50 [0.50, 0.50]" in texts(ax)


@pytest.mark.parametrize(
    ("weights", "by", "words"),
    [
        (np.ones((3, 3)) / 3, None, r"shape \(3, 3\)"),
        (np.ones((0, 2)), None, "n at least 1"),
        (np.ones((3, 2)), None, "sum to 1"),
        (np.full((3, 2), 0.5), ["content"], "1 slices for 3"),
        (np.full((2, 2), 0.5), ["content", None], "no value for 1"),
    ],
)
def test_gate_weights_say_what_they_need(weights, by, words):
    with pytest.raises(InputError, match=words):
        figures.gate_weights(weights, by)


def costs():
    names = [name for name in results().index if not name.startswith(("VLM, z", "oracle"))]
    added = [0, 4.9e6, 2.7e5, 2.72e5, 2.8e5, 4.91e6]
    return results().loc[names].assign(**{"added parameters": added})


def test_cost_accuracy_names_every_point_without_overlaps():
    ax = figures.cost_accuracy(costs())
    assert title(ax) == (
        "EmoVLM-KD, concat linear: 70.0 % for 272 k added parameters; "
        "both models run together: 75.0 % for 4.91 M"
    )
    assert sorted(texts(ax)[1:]) == sorted(costs().index)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == costs()["added parameters"].tolist()
    ax.figure.draw_without_rendering()
    names = [Text.get_window_extent(label) for label in ax.texts[1:]]
    assert not overlaps(names)
    frame = ax.get_window_extent()
    assert all(
        figure_plots._shared(box, frame) == pytest.approx(box.width * box.height) for box in names
    )
    points = ax.transData.transform([(d.get_xdata()[0], d.get_ydata()[0]) for d in dots])
    assert not any(box.contains(*point) for box in names for point in points)
    assert ax.get_xlabel() == "added parameters (count, logarithmic from 100\u00a0k)"
    assert "VLM, tuned 54.0 % [51.0, 57.0] at 0" in figures.alt_text(ax)


def test_cost_accuracy_of_similar_costs_is_linear_and_other_costs_have_their_units():
    table = pd.DataFrame({"accuracy": [0.5, 0.6], "added ms": [1.0, 2.0]}, index=["VLM", "CNN"])
    ax = figures.cost_accuracy(table, "added ms", n=10)
    assert ax.get_xscale() == "linear"
    assert ax.get_xlabel() == "added ms (per image)"
    assert title(ax) == "CNN: 60.0 % for 2 added ms"
    free = figures.cost_accuracy(table.assign(**{"added ms": 0.0}), "added ms", n=10)
    assert free.get_xlim()[0] < 0 < free.get_xlim()[1]
    with pytest.raises(InputError, match="no column added FLOPs"):
        figures.cost_accuracy(table, "added FLOPs", n=10)
    with pytest.raises(InputError, match="at least 0"):
        figures.cost_accuracy(table.assign(**{"added ms": -1.0}), "added ms", n=10)


# --------------------------------------------------------------------------------------- calibration


def test_calibration_and_ece_against_numbers_worked_out_by_hand():
    rows = [[0.95, 0.05], [0.91, 0.09], [0.62, 0.38], [0.5, 0.5], [1.0, 0.0]]
    predictions = Predictions(
        [*"abcde"],
        ["test"] * 5,
        ["yes", "no", "yes", "no", "yes"],
        ("yes", "no"),
        np.array(rows),
        invalid=[False, False, False, True, False],
    )
    table = figures.calibration(predictions, 10)
    assert table["n"].tolist() == [1, 3]
    assert table["lower"].tolist() == pytest.approx([0.6, 0.9])
    assert table["confidence"].tolist() == pytest.approx([0.62, 2.86 / 3])
    assert table["accuracy"].tolist() == pytest.approx([1, 2 / 3])
    # (1 * |1 - 0.62| + 3 * |2/3 - 2.86/3|) / 4
    assert figures.expected_calibration_error(predictions) == pytest.approx((0.38 + 0.86) / 4)


def test_reliability_says_which_way_it_errs_and_leaves_invalid_answers_out():
    right = [True] * 50 + [False] * 50
    ax = figures.reliability(right_where(right, confidence=0.9))
    assert title(ax) == "The VLM is overconfident: says 90 % on average, has 50 % right (ECE 0.40)"
    assert "100" in texts(ax)
    assert [bar.get_height() for bar in cells(ax)] == [100]
    assert ax.get_xlim() == (0, 100)
    shy = figures.reliability(right_where([True] * 90 + [False] * 10, confidence=0.5))
    assert "is underconfident" in title(shy)
    fair = made(["fear", "fear", "joy", "joy", ""], ["fear"] * 5, confidence=0.5)
    ax = figures.reliability(fair, name="VLM, tuned")
    assert title(ax).startswith("The tuned VLM is right as often as it says")
    assert any("n = 4 test images" in t and "1 invalid answers left out" in t for t in texts(ax))


def test_reliability_needs_a_valid_answer_and_a_bin():
    with pytest.raises(InputError, match="no answer names a class"):
        figures.reliability(made(["", ""], ["fear", "joy"]))
    with pytest.raises(InputError, match="bins is 0"):
        figures.reliability(right_where([True]), bins=0)


# ------------------------------------------------------------------------------------ all of them


def every_figure():
    models, cue = cue_example()
    vlm, cnn = models.values()
    weights = np.full((4, 2), 0.5)
    return {
        "four_way_map": lambda ax=None: figures.four_way_map(vlm, cnn, ax=ax),
        "confusion": lambda ax=None: figures.confusion(vlm, ax=ax),
        "cue_bars": lambda ax=None: figures.cue_bars(models, cue, ax=ax),
        "oracle_gap": lambda ax=None: figures.oracle_gap(results(), ax=ax),
        "sweep": lambda ax=None: figures.sweep(runs(), group="alpha", n=40, ax=ax),
        "gate_weights": lambda ax=None: figures.gate_weights(weights, ax=ax),
        "cost_accuracy": lambda ax=None: figures.cost_accuracy(costs(), ax=ax),
        "reliability": lambda ax=None: figures.reliability(vlm, ax=ax),
    }


@pytest.mark.parametrize("name", every_figure())
def test_each_figure_draws_on_the_axes_given_and_states_n(name):
    figure, axes = plt.subplots(1, 2, figsize=(16, 7), layout="constrained")
    ax = every_figure()[name](axes[0])
    assert ax is axes[0] and isinstance(ax, Axes)
    assert ax.get_xlabel()
    assert any(text.startswith("n = ") for text in texts(ax))
    assert figures.alt_text(ax).startswith(title(ax) + ". ")
    assert " n = " in figures.alt_text(ax) and "nan" not in figures.alt_text(ax)
    assert axes[1].get_title(loc="left") == ""
    assert len(plt.get_fignums()) == 1


def test_no_title_or_label_is_cut_off():
    ax = figures.oracle_gap(results())
    figure = ax.get_figure()
    figure.draw_without_rendering()
    for text in [ax._left_title, *ax.texts, *ax.get_yticklabels()]:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= figure.bbox.width + 1
        assert box.y0 >= -1 and box.y1 <= figure.bbox.height + 1


def test_names_are_shown_as_they_are_and_not_read_as_formulas():
    names = ("$x^2$ model", "a_b $\\frac$ c")
    ax = figures.four_way_map(*pair(3, 2, 2, 3), names=names)
    ax.figure.draw_without_rendering()
    assert "only $x^2$ model 2 images" in figures.alt_text(ax)
    labels = ["$\\bad{$", "b"] * 2
    odd = made(labels[::-1], labels, classes=("$\\bad{$", "b"))
    figures.confusion(odd).get_figure().draw_without_rendering()


def test_alt_text_has_no_words_for_other_axes():
    figure, ax = plt.subplots()
    with pytest.raises(InputError, match="draw one first"):
        figures.alt_text(ax)
    with pytest.raises(InputError, match="draw one first"):
        figures.alt_text(figure)
    drawn = [figures.reliability(right_where([True])) for _ in range(2)]
    assert figures.alt_text(drawn).count("VLM") == 2


def test_save_writes_the_same_bytes_again_with_the_alt_text_inside(tmp_path):
    ax = figures.four_way_map(*pair(34, 21, 28, 17))
    first = figures.save(ax, tmp_path / "new" / "map.png")
    second = figures.save(
        figures.four_way_map(*pair(34, 21, 28, 17)).figure, tmp_path / "again.png"
    )
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.info["Description"] == figures.alt_text(ax)
        assert "Software" not in image.info
        assert image.width > 1000
    with pytest.raises(InputError, match="no .png"):
        figures.save(ax, tmp_path / "map.pdf")


def test_percent_does_not_break_and_says_undefined():
    assert figures.percent(0.214) == "21\u00a0%"
    assert figures.percent(0.214, 1) == "21.4\u00a0%"
    assert figures.percent(float("nan")) == "undefined"


def test_pictures_have_a_caption_each_and_say_so_in_words():
    from PIL import Image

    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    first = figures.pictures(images, ["is anger\nsays $ awe", "b", "c"], "Three colours", columns=2)
    figure = first.get_figure()
    assert len(figure.axes) == 4
    assert [ax.get_xlabel() for ax in figure.axes] == ["is anger\nsays \\$ awe", "b", "c", ""]
    assert figures.alt_text(figure) == "Three colours. 3 pictures. is anger says $ awe; b; c"
    with pytest.raises(InputError, match="3 images have 1 captions"):
        figures.pictures(images, ["a"])
    with pytest.raises(InputError, match="no images"):
        figures.pictures([])


def test_show_displays_the_figure_with_its_words_and_nothing_that_acts(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    figure, ax = plt.subplots()
    with pytest.raises(InputError):
        figures.show(ax)
    figures.show(ax, alt='a "quoted" <b>word</b>')
    (data,) = shown
    assert data["text/plain"] == 'a "quoted" <b>word</b>'
    assert 'alt="a &quot;quoted&quot; &lt;b&gt;word' in data["text/html"]
    assert not plt.fignum_exists(figure.number)
