from sklearn.metrics import recall_score

from emokd_utils import checks


def test_accuracy_by_counting_rows_passes():
    def accuracy(table):
        right = 0
        for row in table.itertuples():
            if not row.invalid and row.predicted == row.label:
                right += 1
        return right / len(table)

    assert checks.exercises("0")["0.1"](accuracy).status == checks.PASSED


def test_accuracy_from_the_probabilities_passes():
    def accuracy(table):
        names = table.filter(like="p_").rename(columns=lambda name: name.removeprefix("p_"))
        named = names.idxmax(axis=1).where(~table["invalid"])
        return (named == table["label"]).sum() / table.shape[0]

    assert checks.exercises("0")["0.1"](accuracy).status == checks.PASSED


def test_the_macro_average_by_dictionaries_passes():
    def macro(labels, predicted):
        hits = {}
        for label, guess in zip(labels, predicted, strict=True):
            hits.setdefault(label, []).append(label == guess)
        return sum(sum(h) / len(h) for h in hits.values()) / len(hits)

    assert checks.exercises("0")["0.2"](macro).status == checks.PASSED


def test_the_macro_average_by_scikit_learn_passes():
    def macro(labels, predicted):
        names = sorted(set(labels))
        guesses = [guess or "none" for guess in predicted]
        return recall_score(labels, guesses, labels=names, average="macro")

    assert checks.exercises("0")["0.2"](macro).status == checks.PASSED


def test_the_parts_in_capitals_pass_and_unknown_ones_are_named():
    exercise = checks.exercises("0")["0.3"]
    loud = {stage.title(): part.upper() for stage, part in exercise.right.items()}
    assert exercise(loud).status == checks.PASSED
    assert "'decoder' is no box" in str(exercise(exercise.right | {"gating": "decoder"}))
    assert "'gating' has no part" in str(
        exercise({"distillation": "head"} | dict(list(exercise.right.items())[:3]))
    )
