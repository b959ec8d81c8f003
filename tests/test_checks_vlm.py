import math
import re

import torch

from emokd_utils import checks
from emokd_utils.answers import parse_answer
from emokd_utils.emotions import MIKELS

LESSON = checks.exercises("3")


def test_visual_tokens_counted_one_by_one_pass():
    def count(height, width, patch=14, merge=2):
        step = patch * merge
        sides = [max(1, math.floor(side / step + 0.5)) for side in (height, width)]
        return sum(1 for _ in range(sides[0]) for _ in range(sides[1]))

    assert LESSON["3.1"](count).status == checks.PASSED


def test_visual_tokens_as_a_tensor_pass():
    def count(height, width, patch=14, merge=2):
        return (torch.tensor([height, width]) / (patch * merge)).round().prod()

    assert LESSON["3.1"](count).status == checks.PASSED


def test_a_score_by_loops_passes():
    def score(logits, tokens, start):
        total = 0.0
        for place in range(start, len(tokens)):
            row = logits[place - 1].double()
            total += float(row[tokens[place]] - torch.logsumexp(row, 0))
        return total

    assert LESSON["3.2"](score).status == checks.PASSED


def test_a_score_from_the_cross_entropy_passes():
    def score(logits, tokens, start):
        loss = torch.nn.functional.cross_entropy(
            logits[start - 1 : -1], tokens[start:], reduction="sum"
        )
        return -loss

    assert LESSON["3.2"](score).status == checks.PASSED


def test_a_parser_of_another_style_passes():
    def parse(text, labels):
        text = text.lower()
        if "emotion" in text:
            words = re.split(r"[^a-z]+", text.split("emotion", 1)[1])
            word = next(filter(None, words), None)
            return word if word in labels else None
        named = {label for label in labels if re.search(rf"\b{label}\b", text)}
        return named.pop() if len(named) == 1 else None

    assert LESSON["3.3"](parse).status == checks.PASSED


def test_the_parser_with_the_label_set_of_the_labels_passes():
    assert LESSON["3.3"](lambda text, labels: parse_answer(text, MIKELS)).status == checks.PASSED


def test_a_parser_that_reads_nothing_is_not_attempted():
    assert LESSON["3.3"](lambda text, labels: None).status == checks.NOT_ATTEMPTED
