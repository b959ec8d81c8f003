import cmath
import itertools
import math
import operator
import re
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import bootstrap
from sklearn.metrics import cohen_kappa_score, recall_score
from statsmodels.stats.contingency_tables import mcnemar
from torch.nn.functional import cross_entropy

from emokd_utils import checks
from emokd_utils.answers import parse_answer
from emokd_utils.data import stratified_split
from emokd_utils.emotions import MIKELS, infer_label_set
from emokd_utils.errors import InputError
from emokd_utils.explorer import explore
from emokd_utils.instructions import answer_for, categorical_prompt
from emokd_utils.predictions import Predictions

KNOWN = {n: one for lesson in checks.LESSONS for n, one in checks.exercises(lesson).items()}
by_number = pytest.mark.parametrize("exercise", KNOWN.values(), ids=KNOWN)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOKD_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    checks._here.clear()


@by_number
def test_each_known_mistake_is_told_by_its_name_and_the_reference_passes_after_them(exercise):
    assert len(exercise.mistakes) >= 3
    for text, example in exercise.mistakes.items():
        result = exercise(example)
        assert (result.status, f"{result.mistake}. {result.look}") == (checks.NOT_YET, text)
        assert result.look
    assert exercise(exercise.right).status == checks.PASSED


@by_number
def test_each_case_that_is_about_something_names_it_when_its_result_alone_is_wrong(exercise):
    for place, text in enumerate(getattr(exercise.probe, "about", ())):
        turns = itertools.count()

        def wrong_once(*given, turns=turns, place=place):
            if next(turns) != place:
                return exercise.right(*given)
            with suppress(Exception):
                return spoiled(exercise.right(*given))
            return 0  # though an error is wanted

        if exercise.probe.cases[place]:
            assert exercise(wrong_once).mistake == text


def spoiled(result):
    """Another result of the same kind."""
    if isinstance(result, (tuple, list)) and result and not isinstance(result[0], str):
        return type(result)(map(spoiled, result))
    if isinstance(result, (dict, list, tuple)):
        return {**result, "x": 1} if isinstance(result, dict) else type(result)([*result, "x"])
    whole = np.asarray(result).dtype.kind in "iu"
    return result + 1 if whole or torch.is_tensor(result) else result * 0.5 + 0.01


@by_number
@pytest.mark.parametrize("stub", [None, ...])
def test_an_empty_answer_is_not_attempted(exercise, stub):
    assert exercise(stub).status == checks.NOT_ATTEMPTED
    if callable(exercise.right):
        assert exercise(lambda *given: None).status == checks.NOT_ATTEMPTED
        assert "returns nothing" in str(exercise(lambda *given: print(end="")))


RIGHT = {
    "0.1 by what is correct": lambda table: table["correct"].sum() / len(table),
    "0.2 by scikit-learn": lambda labels, predicted: recall_score(
        labels, [p or "none" for p in predicted], labels=[*set(labels)], average="macro"
    ),
    "1.1 by pandas": lambda rows, labels: (
        pd.DataFrame(rows, columns=[*labels]).T.groupby(dict(labels.polarity)).sum().T
    ),
    "1.2 by complex numbers": lambda degrees: (
        math.degrees(cmath.phase(sum(cmath.rect(1.0, math.radians(d)) for d in degrees))) % 360
    ),
    "3.1 as a tensor": lambda height, width, patch=14, merge=2: (
        (torch.tensor([height, width]) / (patch * merge)).round().prod()
    ),
    "3.2 by cross-entropy": lambda logits, tokens, start: (
        -cross_entropy(logits[start - 1 : -1], tokens[start:], reduction="sum")
    ),
    "3.3 of the library": lambda text, labels: parse_answer(text, infer_label_set(labels)),
    "4.1 by loops": lambda tokens, starts, lengths: [
        [token if first <= k < end else -100 for k, token in enumerate(row)]
        for row, first, end in zip(tokens.tolist(), starts, lengths, strict=True)
    ],
    "4.2 by one pattern": lambda text, forms: re.search(
        rf"(?<![a-z])({'|'.join(forms)})(?![a-z])", text, re.I
    ),
    "4.3 of the library": lambda classes, label: (
        categorical_prompt(infer_label_set(classes)),
        answer_for(label),
    ),
    "5.3 by sums of products": lambda weight, a, b, alpha: (
        weight.numpy() + alpha / len(a) * np.einsum("or,ri->oi", b.numpy(), a.numpy())
    ),
    "5.4 by cosines squared": lambda step, steps, rise, peak: (
        peak * min(step / rise, math.cos(math.pi / 2 * max(0, step - rise) / (steps - rise)) ** 2)
    ),
    "6.4 of statsmodels": lambda a, b: mcnemar(pd.crosstab(a, b).to_numpy(), exact=True).pvalue,
    "6.5 by torch": lambda predicted, labels: (
        1 - torch.as_tensor(predicted != labels).float().prod(0).mean()
    ),
    "6.6 of scikit-learn": lambda a, b, labels: cohen_kappa_score(a, b),
    "7.3 by a network": lambda *widths: sum(
        value.numel()
        for a, b in zip(widths, widths[1:], strict=False)
        for value in torch.nn.Linear(a, b, device="meta").parameters()
    ),
    "8.1 by comparison": lambda answers, classes: [
        [a == name for name in classes] for a in answers
    ],
    "8.3 as an array": lambda ids, learnt_from, reported: np.array(
        [name for name in ids if name not in set().union(reported, *learnt_from.values())]
    ),
    "9.1 by counting": lambda vlm, vision, ours: (
        float(sum(ours) - max(sum(vlm), sum(vision)))
        / float(sum(vlm | vision) - max(sum(vlm), sum(vision)))
    ),
    "9.2 by a bootstrap": lambda a, b: [
        (a.astype(float) - b).mean(),
        *bootstrap(
            [(a.astype(float) - b).mean(0)], np.mean, n_resamples=500, random_state=1
        ).confidence_interval,
    ],
    "9.3 by what is left out": lambda cost: (
        (sum(cost.values()) - sum(cost[part] for part in [*cost][:3])) / cost["vision model"]
    ),
    "10.1 by numpy": lambda rows: {
        image
        for image, split, pixels in rows
        if split != "test" and ("test", pixels) in {row[1:] for row in rows}
    },
    "10.2 of the library": stratified_split,
    "A2.1 as a list": lambda fit, rows, labels, fold: [
        fit([r for r, g in zip(rows, fold, strict=True) if g != f], labels[fold != f])([row])[0]
        for row, f in zip(rows, fold, strict=True)
    ],
    "A2.2 by trying": lambda gain, margin, own, of_one, quantile: next(
        (
            n
            for n in range(1, 100_000)
            if abs(gain - margin) > quantile * math.sqrt(own + of_one / n)
        ),
        -1,
    ),
    "10.3 in blocks": lambda quantised, kept: (quantised / 64 * (32 + 4) + 2 * kept) / 1000**3,
}
"""Answers that must pass, none written like the reference; the key begins with the exercise."""


def right(number):
    def keep(answer):
        RIGHT[f"{number} {answer.__name__}"] = answer
        return answer

    return keep


@right("2.1")
def averages_that_overwrite_the_matrix(confusion):
    hit = confusion.diagonal().copy()
    np.fill_diagonal(confusion, 0)
    missed, false = confusion.sum(1), confusion.sum(0)
    recall, f1 = hit / (hit + missed), hit / (hit + (missed + false) / 2)
    return torch.tensor([recall.mean(), f1.mean()])


@right("2.3")
def calibration_with_bins_closed_above(confidence, correct, bins):
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    confidence, correct = torch.as_tensor(confidence), torch.as_tensor(correct).double()
    total = torch.zeros((), dtype=torch.float64)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = correct[inside].mean() - confidence[inside].mean()
            total += inside.double().mean() * gap.abs()
    return total


@right("4.3")
def instruction_in_other_words(classes, label):
    lines = "\n".join(f"- {name.capitalize()}" for name in classes)
    prompt = f"Look at the image. What does it evoke?\n{lines}\n"
    return [prompt + "Reply as {'emotion': '...'}", str({"emotion": label})]


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_however_they_are_written(name):
    exercise = KNOWN[name.split()[0]]
    assert exercise(RIGHT[name]).status == checks.PASSED
    assert exercise(exercise.right).status == checks.PASSED  # and nothing is broken by it


KEY = KNOWN["6.1"].right[1]
IDS = list(KEY.index)
MISSED, SURE = (KNOWN[number].right[0] for number in ("6.2", "6.3"))  # what the explorer shows


def model(side):
    """A's or B's answers in the key as predictions."""
    sure = KEY[f"confidence_{side}"].to_numpy()[:, None]
    named = KEY[f"predicted_{side}"].to_numpy()[:, None] == list(MIKELS.labels)  # (N, 8)
    return Predictions(
        ids=tuple(IDS),
        splits=("test",) * len(KEY),
        labels=tuple(KEY["label"]),
        classes=MIKELS.labels,
        probabilities=np.where(named, sure, (1 - sure) / 7).astype(np.float32),
        provenance={"model": side},
    )


@pytest.fixture(scope="module")
def explorer():
    """The images of the key in a real explorer, which holds back what the lesson does."""
    pictures = dict.fromkeys(IDS, Image.new("RGB", (8, 8)))
    notes, reasons = KEY[["cue"]], KEY["reason"].dropna().to_dict()
    return explore(model("a"), model("b"), pictures, metadata=notes, reasons=reasons)


def test_the_small_key_is_what_an_explorer_gives(explorer):
    made = explorer.table
    for name in set(KEY) - {"confidence_a", "confidence_b", "emotion", "label_noise", "objects"}:
        assert made[name].fillna("").tolist() == KEY[name].fillna("").tolist(), name
    np.testing.assert_allclose(made["confidence_a"], KEY["confidence_a"], atol=1e-6)


def test_what_was_found_in_an_explorer_passes(explorer):
    key = explorer.table.join(KEY[["emotion", "label_noise", "objects"]])

    def shown(query):
        explorer.show(key.query(query).index)
        return explorer.selection

    wrong = shown("cell == 'neither' and label_noise").index.to_numpy()
    missed = shown("label == 'fear' and not correct_a and cue == 'content'")
    sure = shown("not correct_a and confidence_a >= 0.75")
    assert KNOWN["6.1"]((wrong, key)).status == checks.PASSED
    assert KNOWN["6.2"]((missed, "a Spider", "Lamps", key)).status == checks.PASSED
    assert KNOWN["6.3"]((sure, IDS[:2], 0.75, key)).status == checks.PASSED


def changed(**entries):
    """The key with other entries in the rows of these numbers: ``objects={1: "lamp"}``."""
    key = KEY.copy()
    for name, values in entries.items():
        key.loc[[IDS[k] for k in values], name] = list(values.values())
    return key


BARE = KEY.drop(columns=["emotion", "label_noise", "objects", "cue"])
BARE_MISSED = BARE[(BARE["label"] == "fear") & ~BARE["correct_a"]].drop(columns="reason")
RIGHT_AND_NOISY = changed(label={0: "sadness"}, correct_a={0: True}, label_noise={0: True})
TWO_OBJECTS, NEARLY_SURE = changed(objects={1: "snake;lamp"}), changed(confidence_a={2: 0.745})
ALSO_NEARLY_SURE = NEARLY_SURE.loc[[*SURE.index, IDS[2]]]


@pytest.mark.parametrize(
    ("number", "answer", "says"),
    [
        ("6.1", ([IDS[0], IDS[7], IDS[8]], RIGHT_AND_NOISY), "[passed]"),
        ("6.1", (IDS[7:10], BARE), "[passed]"),  # two models against a label are enough
        ("6.2", (BARE_MISSED, "anything", "something else", BARE), "[passed]"),
        ("6.2", (MISSED, "snake", "lamp", TWO_OBJECTS), "[passed]"),  # as frequent, as right
        ("6.2", (MISSED, "snakes", "glow", TWO_OBJECTS), "[passed]"),
        ("6.3", (SURE, IDS[7:9], 0.75, BARE), "[passed]"),
        ("6.3", (SURE, IDS[:2], 0.75, NEARLY_SURE), "[passed]"),  # a slider may be a little off
        ("6.3", (ALSO_NEARLY_SURE, IDS[:2], 0.75, NEARLY_SURE), "[passed]"),
        ("6.1", [], "[not attempted]"),
        ("6.1", (None, KEY), "[not attempted]"),
        ("6.2", (KEY, "spider", None, KEY), "[not attempted]"),
        ("6.3", (KEY, ..., 0.75, KEY), "[not attempted]"),
        ("6.1", (["test/00099.png"] * 3, KEY), "'test/00099.png' is no id of a test image"),
        ("6.2", (KEY[:0], "spider", "lamp", KEY), "the explorer shows no image"),
        ("6.2", (BARE_MISSED[1:], "anything", "else", BARE), "some of A's errors are left out"),
        ("6.3", (KEY[:0], IDS[:2], 0.75, KEY), "the explorer shows no image"),
    ],
)
def test_other_findings_pass_and_slips_are_told_in_words(number, answer, says):
    assert says in str(KNOWN[number](answer))


POWERS = checks.calls((2.0, 3), (3.0, 2), (5.0, 2))
EXAMPLE = checks.Exercise("7.9", "Powers", POWERS, pow, {"product. Look.": operator.mul})
CENTRED = checks.calls((np.array([[1.0, 2, 6], [3, 4, 8]]),), keep=0)
ROWS = checks.Exercise(
    "7.8",
    "Rows without their mean",
    CENTRED,
    lambda rows: rows - rows.mean(1, keepdims=True),
    {"columns. Which mean?": lambda rows: rows - rows.mean(0)},
)
SEEDED, ENDS = KNOWN["9.2"], np.array([0, -1, 1])


def cosine_alone(step, steps, warmup, peak):
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def more_classes(classes, label):
    return f"{', '.join(classes)}, or another? {{'emotion': 'label'}}", answer_for(label)


STAGES, WRONG = KNOWN["0.3"], next(iter(KNOWN["7.3"].mistakes.values()))


@pytest.mark.parametrize(
    ("exercise", "answer", "says"),
    [
        (
            EXAMPLE,
            lambda base, exponent: base + exponent,
            "(base=2.0, exponent=3) gives 5.0; wanted is a number not below 0. Work",
        ),
        (EXAMPLE, lambda base, exponent: 9 * base, "the argument exponent changes nothing"),
        (EXAMPLE, lambda base, exponent: base**exponent - 3, "off by the same amount"),
        (EXAMPLE, lambda base, exponent: base - 2 * exponent, "it is out of range: "),
        (EXAMPLE, lambda base, exponent: base * exponent if base > 2 else 1, "product. Look."),
        (KNOWN["5.4"], cosine_alone, "it is wrong only at step 0, in the warm-up. cosine_alone("),
        (KNOWN["4.3"], more_classes, "not yet right: no other class is offered"),
        (STAGES, STAGES.right | {"gating": "head"}, "not yet right: what gating trains"),
        (EXAMPLE, lambda base, exponent: f"{base}", "it is a text, not a number. lambda(base"),
        (EXAMPLE, lambda base, exponent: 1.0, "the same whatever comes in"),
        (EXAMPLE, lambda base, exponent: 2 * base**exponent, "off by the same factor"),
        (EXAMPLE, lambda base, exponent: 1 / 0, "ZeroDivisionError"),
        (
            EXAMPLE,
            lambda base, exponent: {3: 8}.get(exponent),
            "returns nothing (None). Does every way",
        ),
        (EXAMPLE, lambda base, exponent: math.nan, "undefined (nan)"),
        (EXAMPLE, lambda base, exponent: 100 * base**exponent, "in per cent"),
        (EXAMPLE, lambda base, exponent: base**-exponent, "upside down"),
        (EXAMPLE, lambda base, exponent: int("<b>"), "ValueError"),
        (EXAMPLE, 3, "a function is wanted"),
        (KNOWN["5.3"], lambda w, a, b, alpha: w.add_(alpha / len(a) * b @ a), "overwritten"),
        (ROWS, lambda rows: rows.mean(1, keepdims=True) - rows, "sign is turned round"),
        (ROWS, lambda rows: (rows - rows.mean(1, keepdims=True)).T, "rows and columns"),
        (SEEDED, lambda a, b: SEEDED.right(b, a), "is not the difference in accuracy"),
        (SEEDED, lambda a, b: SEEDED.right(a, b)[[0, 2, 1]], "does not lie between the two ends"),
        (SEEDED, lambda a, b: ENDS / 200 + a.mean() - b.mean(), "is too narrow"),
        (SEEDED, lambda a, b: ENDS / 2 + a.mean() - b.mean(), "is too wide"),
        (KNOWN["9.3"], lambda cost: f"{cost['head']:.0%}", "it is a text, not a number"),
        (KNOWN["9.3"], lambda cost: math.nan, "it is undefined (nan)"),
        (STAGES, {"gating": "gate"}, "'fine-tuning' has no part"),
        (STAGES, ["gate"], "a dictionary is wanted"),
    ],
)
def test_what_any_answer_can_get_wrong_is_told(exercise, answer, says):
    result = exercise(answer)
    assert result.status == checks.NOT_YET
    assert says in str(result)
    assert "'<b>'" not in result._repr_html_()  # text, not markup


@pytest.mark.parametrize(
    "answer",
    [
        lambda base, exponent: int(base) ** exponent,
        lambda base, exponent: Fraction(int(base)) ** exponent,
        lambda base, exponent: torch.tensor(base, dtype=torch.bfloat16) ** exponent,
        lambda base, exponent: np.array([base**exponent]),
    ],
)
def test_a_number_is_a_number(answer):
    assert EXAMPLE(answer).status == checks.PASSED


def test_stages_in_capitals_pass_and_an_answer_not_implemented_is_not_attempted():
    loud = {stage.title(): part.upper() for stage, part in STAGES.right.items()}
    assert STAGES(loud).status == checks.PASSED

    def not_implemented(base, exponent):
        raise NotImplementedError

    assert EXAMPLE(not_implemented).status == checks.NOT_ATTEMPTED


def test_progress_counts_what_passed_and_opening_a_fresh_copy_takes_nothing_back(tmp_path):
    exercise = KNOWN["7.3"]
    (tmp_path / "progress.json").write_text("{")  # a damaged file is no obstacle
    assert "Lesson 7: 0 of 3" in str(checks.progress("7"))
    checks.check("7.3", exercise.right)
    checks.check("7.3", None)
    assert "[x] 7.3" in repr(checks.progress())
    checks.check("7.3", WRONG)
    assert "[ ] 7.3" in repr(checks.progress())


def test_nbgrader_sees_a_failure_as_an_error(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    checks.check("7.3", KNOWN["7.3"].right)
    with pytest.raises(AssertionError, match="biases are missing"):
        checks.check("7.3", WRONG)
    with pytest.raises(AssertionError, match="not attempted"):
        checks.check("7.3", None)


def test_numbers_that_no_exercise_has_are_named():
    with pytest.raises(InputError, match="has no check '7.99'"):
        checks.check("7.99", None)
    with pytest.raises(InputError, match="no lesson '70'"):
        checks.check("70.1", None)
