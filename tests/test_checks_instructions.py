import re

import torch

from emokd_utils import checks

LESSON = checks.exercises("4")


def test_labels_by_loops_pass():
    def labels(tokens, starts, lengths):
        rows = []
        for row, start, length in zip(tokens.tolist(), starts, lengths, strict=True):
            rows.append([t if start <= k < length else -100 for k, t in enumerate(row)])
        return torch.tensor(rows)

    assert LESSON["4.1"](labels).status == checks.PASSED


def test_labels_by_slices_of_a_copy_pass():
    def labels(tokens, starts, lengths):
        made = tokens.clone()
        for row in range(len(made)):
            made[row, : starts[row]] = -100
            made[row, lengths[row] :] = -100
        return made

    assert LESSON["4.1"](labels).status == checks.PASSED


def test_labels_by_a_mask_pass():
    def labels(tokens, starts, lengths):
        place = torch.arange(tokens.shape[1]).expand_as(tokens)
        outside = (place < starts.unsqueeze(1)) | (place >= lengths.unsqueeze(1))
        return tokens.masked_fill(outside, -100)

    assert LESSON["4.1"](labels).status == checks.PASSED


def test_slices_of_the_tokens_themselves_are_told():
    def labels(tokens, starts, lengths):
        made = tokens
        for row in range(len(made)):
            made[row, : starts[row]] = -100
            made[row, lengths[row] :] = -100
        return made

    assert "overwritten" in LESSON["4.1"](labels).mistake


def test_a_leak_detector_by_one_pattern_passes():
    def leaks(text, forms):
        return re.search(rf"\b({'|'.join(forms)})\b", text, re.IGNORECASE)

    assert LESSON["4.2"](leaks).status == checks.PASSED


def test_a_leak_detector_by_sets_passes():
    def leaks(text, forms):
        letters = "".join(c if c.isalpha() else " " for c in text.casefold())
        return not set(letters.split()).isdisjoint(forms)

    assert LESSON["4.2"](leaks).status == checks.PASSED


def test_a_detector_that_returns_nothing_is_not_attempted():
    assert LESSON["4.2"](lambda text, forms: None).status == checks.NOT_ATTEMPTED


def test_another_wording_of_the_instruction_passes():
    def instruction(classes, label):
        lines = "\n".join(f"- {name.capitalize()}" for name in classes)
        prompt = f"Look at the image. What does it evoke?\n{lines}\n"
        return [prompt + "Reply as {'emotion': '...'}", str({"emotion": label})]

    assert LESSON["4.3"](instruction).status == checks.PASSED


def test_the_librarys_question_passes():
    from emokd_utils.emotions import infer_label_set
    from emokd_utils.instructions import answer_for, categorical_prompt

    def instruction(classes, label):
        return categorical_prompt(infer_label_set(classes)), answer_for(label)

    assert LESSON["4.3"](instruction).status == checks.PASSED
