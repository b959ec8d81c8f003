"""The recipes of CONTRIBUTING.md are short, name what there is, and can be followed."""

import re
from pathlib import Path

import numpy as np
import torch
from kept_run import folder_run

from emokd_utils import checks
from emokd_utils.gates import GATES, Gate, build_gate
from emokd_utils.run.store import STAGES, Recipe, stage
from emokd_utils.settings import VisionSettings
from emokd_utils.weights import build_network

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_recipes_are_short_and_name_what_there_is():
    recipes = re.findall(r"^## (Add .+?)\n\n(.+?)\n(?=\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in recipes] == [
        "Add a stage",
        "Add a gate",
        "Add a vision model",
        "Add an exercise",
    ]
    for name, text in recipes:
        assert len(text.splitlines()) <= 10, name
    for path in re.findall(r"`((?:\w+/)*\w+(?:/|\.py|\.md))`", TEXT):
        places = [ROOT / path, ROOT / "emokd_utils" / path, ROOT / "notebooks" / path]
        assert any(place.exists() for place in places), path


def test_the_drawing_names_every_module_and_room():
    drawing = TEXT.partition("```")[2].partition("```")[0]
    there = {path.stem for path in (ROOT / "emokd_utils").glob("[a-z]*.py")}
    rooms = {path.parent.name for path in (ROOT / "emokd_utils").glob("*/__init__.py")}
    assert there | rooms <= set(re.findall(r"\w+", drawing))


def test_a_stage_can_be_added(tmp_path):
    try:

        @stage(1, "answer.txt")
        def doubled(run, number):
            def make(to):
                (to / "answer.txt").write_text(str(2 * number))

            return Recipe({"number": number}, make, lambda at: int((at / "answer.txt").read_text()))

        run = folder_run(tmp_path)
        assert run.artefact(doubled, 21).value == 42 and run.artefact(doubled, 21).is_kept
        assert STAGES["doubled"].travels == ("answer.txt",)
    finally:
        STAGES.pop("doubled", None)


def test_a_gate_can_be_added(monkeypatch):
    class Mean(Gate):
        def forward(self, student, vlm):
            return (student + vlm) / 2

    monkeypatch.setitem(GATES, "mean", Mean)
    gate = build_gate("mean", 2)
    logits = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    assert gate(*logits).tolist() == [[1, 2]]
    assert gate.weights(*logits).sum().item() == 1


def test_a_vision_model_works_by_its_name():
    network = build_network(VisionSettings(name="test_efficientnet", image_size=64), 3)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_an_exercise_can_be_added(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("EMOKD_PROGRESS", str(tmp_path / "progress.json"))
    square = checks.Exercise(
        "0.9",
        "Square",
        checks.calls((3,), (np.float64(-2),)),
        lambda x: x * x,
        {"it is doubled. Is 6 the square of 3?": lambda x: 2 * x},
    )
    monkeypatch.setattr(checks, "exercises", lambda lesson: {"0.9": square})
    assert checks.check("0.9", lambda x: x**2).status == checks.PASSED
    assert "it is doubled" in str(checks.check("0.9", lambda x: x + x))
