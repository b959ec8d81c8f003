import numpy as np
import pytest
import torch

from emokd_utils import checks
from emokd_utils.errors import InputError

EXERCISES = [e for lesson in checks.LESSONS for e in checks.exercises(lesson).values()]
by_number = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.number)


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOKD_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    checks._here.clear()


@by_number
def test_the_reference_passes(exercise):
    assert exercise(exercise.right).status == checks.PASSED


@by_number
def test_each_known_mistake_is_told_by_its_name(exercise):
    assert len(exercise.mistakes) >= 3
    for mistake in exercise.mistakes:
        result = exercise(mistake.example)
        assert (result.status, result.mistake) == (checks.NOT_YET, mistake.name)
        assert mistake.look in str(result)


@by_number
@pytest.mark.parametrize("stub", [None, ...])
def test_an_empty_answer_is_not_attempted(exercise, stub):
    assert exercise(stub).status == checks.NOT_ATTEMPTED


def test_every_lesson_has_checks_with_numbers_of_its_own():
    for lesson in checks.LESSONS:
        numbers = list(checks.exercises(lesson))
        assert len(numbers) >= 2
        assert all(n.rpartition(".")[0] == lesson for n in numbers)


# ----------------------------------------------------------------------------- the framework itself


def power(base, exponent):
    return base**exponent


EXAMPLE = checks.Exercise(
    "7.9",
    "Powers",
    checks.calls((2.0, 3), (3.0, 2)),
    power,
    (checks.Mistake("product", "Look at the sign.", lambda base, exponent: base * exponent),),
)


def test_another_style_of_the_right_answer_passes():
    def by_loop(base, exponent):
        result = torch.ones(())
        for _ in range(exponent):
            result = result * base
        return result

    assert EXAMPLE(by_loop).status == checks.PASSED


def test_an_unknown_mistake_says_how_far_it_is():
    result = EXAMPLE(lambda base, exponent: 2 * base**exponent)
    assert result.status == checks.NOT_YET
    assert "2 times the right value" in result.look


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda base, exponent: [1.0], "It gives list"),
        (lambda base, exponent: np.ones(3), "shape (3,)"),
        (lambda base, exponent: 1 / 0, "ZeroDivisionError"),
        (3, "a function is wanted"),
    ],
)
def test_other_answers_are_told_what_is_wrong(answer, says):
    result = EXAMPLE(answer)
    assert result.status == checks.NOT_YET
    assert says in str(result)


def test_a_stub_that_returns_nothing_or_is_not_implemented_is_not_attempted():
    def not_implemented(base, exponent):
        raise NotImplementedError

    assert EXAMPLE(lambda base, exponent: None).status == checks.NOT_ATTEMPTED
    assert EXAMPLE(not_implemented).status == checks.NOT_ATTEMPTED


def test_progress_counts_what_passed_and_opening_a_fresh_copy_takes_nothing_back():
    exercise = checks.exercises("7")["7.3"]
    assert "Lesson 7: 0 of 3" in str(checks.progress("7"))
    checks.check("7.3", exercise.right)
    checks.check("7.3", None)
    assert "[x] 7.3" in str(checks.progress())
    checks.check("7.3", exercise.mistakes[0].example)
    assert "[ ] 7.3" in str(checks.progress())


def test_a_damaged_progress_file_is_no_obstacle(tmp_path):
    (tmp_path / "progress.json").write_text("{")
    assert "0 of" in str(checks.progress("7"))


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


def test_a_result_is_shown_as_text_not_as_markup():
    result = checks.Result(
        EXAMPLE, checks.NOT_YET, "it raises an error", "<script>alert(1)</script>"
    )
    assert "<script>" not in result._repr_html_()
