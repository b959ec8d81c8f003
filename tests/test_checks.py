import cmath
import math
import random
import re
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import recall_score
from torch.nn.functional import cross_entropy, linear

from emokd_utils import checks
from emokd_utils.data import stratified_split
from emokd_utils.emotions import MIKELS, infer_label_set
from emokd_utils.errors import InputError
from emokd_utils.instructions import answer_for, categorical_prompt
from emokd_utils.vlm import parse_answer

EXERCISES = [e for lesson in checks.LESSONS for e in checks.exercises(lesson).values()]
by_number = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.number)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOKD_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    checks._here.clear()


@by_number
def test_each_known_mistake_is_told_by_its_name_and_the_reference_passes_after_them(exercise):
    assert len(exercise.mistakes) >= 3
    for mistake in exercise.mistakes:
        result = exercise(mistake.example)
        assert (result.status, result.mistake) == (checks.NOT_YET, mistake.name)
        assert mistake.look and mistake.look in str(result)
    assert exercise(exercise.right).status == checks.PASSED


@by_number
@pytest.mark.parametrize("stub", [None, ...])
def test_an_empty_answer_is_not_attempted(exercise, stub):
    assert exercise(stub).status == checks.NOT_ATTEMPTED
    if callable(exercise.right):
        assert exercise(lambda *given: stub).status == checks.NOT_ATTEMPTED


def test_every_lesson_has_checks_with_numbers_of_its_own():
    for lesson in checks.LESSONS:
        numbers = list(checks.exercises(lesson))
        assert len(numbers) >= 2
        assert all(number.rpartition(".")[0] == lesson for number in numbers)


# ------------------------------------------------------------------- right answers of other styles

RIGHT = []
"""Numbers of exercises and answers that must pass, none written like the reference."""


def right(number):
    def keep(answer):
        RIGHT.append(pytest.param(number, answer, id=f"{number} {answer.__name__}"))
        return answer

    return keep


@right("0.1")
def accuracy_from_the_probabilities(table):
    names = table.filter(like="p_").rename(columns=lambda name: name.removeprefix("p_"))
    named = names.idxmax(axis=1).where(~table["invalid"])
    return (named == table["label"]).sum() / table.shape[0]


@right("0.2")
def macro_average_by_scikit_learn(labels, predicted):
    guesses = [guess or "none" for guess in predicted]
    return recall_score(labels, guesses, labels=sorted(set(labels)), average="macro")


@right("1.1")
def polarity_by_torch(probabilities, label_set):
    positive = torch.tensor([float(label_set.polarity[c] == "positive") for c in label_set])
    share = torch.from_numpy(probabilities).float() @ positive
    return torch.stack([1 - share, share], dim=1)


@right("1.2")
def hue_by_complex_numbers(degrees):
    total = sum(cmath.rect(1.0, math.radians(d)) for d in degrees)
    return (math.degrees(cmath.phase(total)) + 360) % 360


@right("1.3")
def votes_by_sorting(votes, needed):
    names, counts = np.unique(votes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    alone = len(counts) == 1 or counts[order[0]] > counts[order[1]]
    return names[order[0]] if alone and counts[order[0]] >= needed else "undecided"


@right("2.1")
def averages_that_overwrite_the_matrix(confusion):
    hit = confusion.diagonal().copy()
    np.fill_diagonal(confusion, 0)
    missed, false = confusion.sum(1), confusion.sum(0)
    recall, f1 = hit / (hit + missed), hit / (hit + (missed + false) / 2)
    return torch.tensor([recall.mean(), f1.mean()])


@right("2.2")
def epoch_by_a_loop(history, patience):
    lowest, kept = float("inf"), None
    while history and (kept is None or history[0]["epoch"] - kept <= patience):
        record = history.pop(0)
        if record["val_loss"] < lowest:
            lowest, kept = record["val_loss"], record["epoch"]
    return kept


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


@right("3.1")
def visual_tokens_as_a_tensor(height, width, patch=14, merge=2):
    return (torch.tensor([height, width]) / (patch * merge)).round().prod()


@right("3.2")
def score_from_the_cross_entropy(logits, tokens, start):
    return -cross_entropy(logits[start - 1 : -1], tokens[start:], reduction="sum")


@right("3.3")
def parser_by_patterns(text, labels):
    text = text.lower()
    if "emotion" in text:
        words = re.split(r"[^a-z]+", text.split("emotion", 1)[1])
        word = next(filter(None, words), None)
        return word if word in labels else None
    named = {label for label in labels if re.search(rf"\b{label}\b", text)}
    return named.pop() if len(named) == 1 else None


@right("3.3")
def parser_of_the_library(text, labels):
    return parse_answer(text, MIKELS)


@right("4.1")
def labels_by_loops(tokens, starts, lengths):
    rows = zip(tokens.tolist(), starts, lengths, strict=True)
    return [[t if a <= k < b else -100 for k, t in enumerate(row)] for row, a, b in rows]


@right("4.2")
def leaks_by_one_pattern(text, forms):
    return re.search(rf"\b({'|'.join(forms)})\b", text, re.IGNORECASE)


@right("4.3")
def instruction_in_other_words(classes, label):
    lines = "\n".join(f"- {name.capitalize()}" for name in classes)
    prompt = f"Look at the image. What does it evoke?\n{lines}\n"
    return [prompt + "Reply as {'emotion': '...'}", str({"emotion": label})]


@right("4.3")
def instruction_of_the_library(classes, label):
    return categorical_prompt(infer_label_set(classes)), answer_for(label)


@right("5.1")
def layer_by_merging(x, weight, a, b, alpha):
    return linear(x, weight + alpha * (b @ a) / a.shape[0]).tolist()


@right("5.2")
def adapter_matrix_by_matrix(width, heads, key_value_heads, layers, rank):
    head = width / heads
    shapes = [(width, width), (head * key_value_heads, width)] * 2 * layers
    return sum(rank * inputs + outputs * rank for outputs, inputs in shapes)


@right("5.3")
def merging_by_outer_products(weight, a, b, alpha):
    merged = weight.numpy()
    for row, column in zip(a.numpy(), b.T.numpy(), strict=True):
        merged = merged + alpha / len(a) * np.outer(column, row)
    return merged


@right("5.4")
def learning_rate_by_sines(step, steps, warmup, peak):
    angle = math.pi * max(0, step - warmup) / (steps - warmup)
    return peak * min(1.0, step / warmup) * math.cos(angle / 2) ** 2


@right("7.1")
def distillation_by_loops(student, teacher, labels, alpha, temperature):
    total = 0.0
    for z, v, y in zip(student, teacher, labels, strict=True):
        p, q = torch.softmax(z / temperature, 0), torch.softmax(v / temperature, 0)
        divergence = sum(b * (b.log() - a.log()) for a, b in zip(p, q, strict=True))
        ce = -torch.log_softmax(z, 0)[y]
        total = total + alpha * temperature**2 * divergence + (1 - alpha) * ce
    return total / len(student)


@right("7.2")
def rows_by_sorting(ids, cached_ids, cache):
    order = np.argsort(cached_ids)
    places = np.searchsorted(np.array(cached_ids)[order], ids)
    found = order[np.minimum(places, len(order) - 1)]
    if [cached_ids[k] for k in found] != list(ids):
        raise KeyError("not there")
    return cache[found].tolist()


@right("7.3")
def head_parameters_by_torch(features, hidden, classes):
    layers = [
        torch.nn.Linear(a, b, device="meta") for a, b in ((features, hidden), (hidden, classes))
    ]
    return sum(p.numel() for layer in layers for p in layer.parameters())


@right("8.1")
def one_hot_by_comparison(answers, classes):
    return [[answer == name for name in classes] for answer in answers]


@right("8.2")
def experts_image_by_image(student, vlm, student_expert, vlm_expert, router):
    rows = []
    for s, v in zip(student, vlm, strict=True):
        scores = np.exp(router(torch.cat([s, v])).numpy())
        share = scores / scores.sum()
        rows.append(share[0] * student_expert(s) + share[1] * vlm_expert(v))
    return torch.stack(rows)


@right("8.3")
def gate_ids_by_removal(ids, learnt_from, reported):
    for names in [*learnt_from.values(), reported]:
        for name in names & set(ids):
            ids.remove(name)
    return np.array(ids)


@right("9.1")
def gap_by_counting(vlm, vision, ours):
    only = sum(1 for a, b in zip(vlm, vision, strict=True) if a != b and (a or b))
    best = max(sum(vlm), sum(vision))
    return float(sum(ours) - best) / float(sum(vlm & vision) + only - best)


@right("9.2")
def interval_by_bootstrap(a, b):
    per_image = (a.astype(float) - b).mean(0)
    draws = np.random.default_rng(1).integers(0, len(per_image), (4000, len(per_image)))
    return [per_image.mean(), *np.percentile(per_image[draws].mean(1), [2.5, 97.5])]


@right("9.2")
def interval_by_two_deviations_in_loops(a, b):
    images = zip(a.astype(float).T, b.astype(float).T, strict=True)
    each = [sum(x - y for x, y in zip(*image, strict=True)) / len(a) for image in images]
    middle = sum(each) / len(each)
    reach = 2 * (sum((d - middle) ** 2 for d in each) / (len(each) - 1) / len(each)) ** 0.5
    return np.array([middle, middle - reach, middle + reach])


@right("9.3")
def added_share_from_whole_systems(cost):
    vlm = cost["visual encoder"] + cost["language model"]
    together = sum(cost.values()) - cost["head"] - cost["gate"]
    return (sum(cost.values()) - cost["vision model"] - vlm) / (together - vlm)


@right("10.1")
def leaks_by_joining_tables(rows):
    table = pd.DataFrame(rows, columns=["id", "split", "pixels"])
    test, before = table[table["split"] == "test"], table[table["split"] != "test"]
    return set(before.merge(test, on="pixels")["id_x"])


@right("10.2")
def split_by_shuffling_each_class(ids, labels, fraction, seed):
    by_class = {}
    for image, label in zip(ids, labels, strict=True):
        by_class.setdefault(label, []).append(image)
    drawn = set()
    for label, own in sorted(by_class.items()):
        random.Random(f"{seed}/{label}").shuffle(own)
        drawn.update(own[: min(max(1, int(fraction * len(own) + 0.5)), len(own) - 1)])
    return drawn


right("10.2")(stratified_split)


@right("10.3")
def gigabytes_in_blocks_of_bytes(quantised, kept):
    return (quantised / 64 * (32 + 4) + 2 * kept) / 1000**3


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers_pass_however_they_are_written(number, answer):
    exercise = checks.exercises(number.rpartition(".")[0])[number]
    assert exercise(answer).status == checks.PASSED
    assert exercise(exercise.right).status == checks.PASSED  # and nothing is broken by it


# ----------------------------------------------------------------------------- the framework itself

EXAMPLE = checks.Exercise(
    "7.9",
    "Powers",
    checks.calls((2.0, 3), (3.0, 2)),
    lambda base, exponent: base**exponent,
    {"product. Look at the sign.": lambda base, exponent: base * exponent},
)
ROWS = checks.Exercise(
    "7.8",
    "Rows without their mean",
    checks.calls((np.array([[1.0, 2, 6], [3, 4, 8]]),), keep=0),
    lambda rows: rows - rows.mean(1, keepdims=True),
    {"columns. Which mean?": lambda rows: rows - rows.mean(0)},
)


def overwritten(rows):
    rows -= rows.mean(1, keepdims=True)
    return rows


def refused(base, exponent):
    raise ValueError("no <b>")


STAGES = checks.exercises("0")["0.3"]


@pytest.mark.parametrize(
    ("exercise", "answer", "says"),
    [
        (EXAMPLE, lambda base, exponent: 2 * base**exponent, "2 times the right value"),
        (EXAMPLE, lambda base, exponent: "8", "It gives str"),
        (EXAMPLE, lambda base, exponent: np.ones(3), "shape (3,)"),
        (EXAMPLE, lambda base, exponent: 1 / 0, "ZeroDivisionError"),
        (EXAMPLE, lambda base: base, "TypeError"),
        (
            EXAMPLE,
            lambda base, exponent: 8 if exponent == 3 else None,
            "case 2 of 2: It returns no",
        ),
        (EXAMPLE, lambda base, exponent: math.nan, "undefined (nan)"),
        (EXAMPLE, lambda base, exponent: 100 * base**exponent, "in per cent"),
        (EXAMPLE, lambda base, exponent: base**-exponent, "upside down"),
        (EXAMPLE, refused, "ValueError: no <b>"),
        (EXAMPLE, 3, "a function is wanted"),
        (ROWS, overwritten, "an argument is overwritten"),
        (ROWS, lambda rows: rows.mean(1, keepdims=True) - rows, "sign is turned round"),
        (ROWS, lambda rows: (rows - rows.mean(1, keepdims=True)).T, "rows and columns"),
        (STAGES, {"gating": "gate"}, "'fine-tuning' has no part"),
        (STAGES, STAGES.right | {"gating": "decoder"}, "'decoder' is no box"),
        (STAGES, ["gate"], "a dictionary is wanted"),
        (
            checks.exercises("7")["7.2"],
            lambda ids, known, c: c[[known.index(i) for i in ids]],
            "KeyE",
        ),
    ],
)
def test_what_any_answer_can_get_wrong_is_told(exercise, answer, says):
    result = exercise(answer)
    assert result.status == checks.NOT_YET
    assert says in str(result)
    assert "no <b>" not in result._repr_html_()  # text, not markup


@pytest.mark.parametrize(
    "answer",
    [
        lambda base, exponent: int(base) ** exponent,
        lambda base, exponent: Fraction(int(base)) ** exponent,
        lambda base, exponent: torch.tensor(base, dtype=torch.bfloat16) ** exponent,
        lambda base, exponent: np.array([base**exponent]),
        lambda base, exponent: pd.Series([base**exponent]),
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
    exercise = checks.exercises("7")["7.3"]
    (tmp_path / "progress.json").write_text("{")  # a damaged file is no obstacle
    assert "Lesson 7: 0 of 3" in str(checks.progress("7"))
    checks.check("7.3", exercise.right)
    checks.check("7.3", None)
    assert "[x] 7.3" in repr(checks.progress())
    checks.check("7.3", exercise.mistakes[0].example)
    assert "[ ] 7.3" in repr(checks.progress())


def test_nbgrader_sees_a_failure_as_an_error(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    exercise = checks.exercises("7")["7.3"]
    checks.check("7.3", exercise.right)
    with pytest.raises(AssertionError, match="biases are missing"):
        checks.check("7.3", exercise.mistakes[0].example)
    with pytest.raises(AssertionError, match="not attempted"):
        checks.check("7.3", None)


def test_numbers_that_no_exercise_has_are_named():
    with pytest.raises(InputError, match="has no check '7.99'"):
        checks.check("7.99", None)
    with pytest.raises(InputError, match="no lesson '70'"):
        checks.check("70.1", None)
