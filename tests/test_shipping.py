"""The run that comes with the course: it fits today's stages, and is told from one made here."""

import numpy as np
import pytest
from kept_run import folder_run

from emokd_utils.cli.commands import main
from emokd_utils.files import write_text
from emokd_utils.maps import save_explanations
from emokd_utils.predictions import TUNED
from emokd_utils.run import stages
from emokd_utils.run.report import agreement
from emokd_utils.run.results import Results
from emokd_utils.run.run import Run, built_in_run, open_run
from emokd_utils.run.sources import SHIPPED
from emokd_utils.run.store import Artefact, NotMadeError, Recipe
from emokd_utils.scale.archive import export, install
from emokd_utils.scale.shipping import SEEDS, ship


def quiet(line):
    pass


@pytest.fixture
def lab(tmp_path):
    """A run with all that is packed; and the folder that it is packed into."""
    run = folder_run(tmp_path / "lab")
    maps, reasons = run.artefact(stages.explained, 0), run.artefact(stages.reasons, 0)
    for artefact, make in (
        (maps, lambda to: save_explanations(to / "maps.safetensors", {})),
        (reasons, lambda to: write_text(to / "reasons.json", "{}")),
    ):
        recipe = Recipe(artefact.header["inputs"], make, lambda at: at, artefact.recipe.label)
        Artefact(run.store, artefact.stage, recipe).value  # noqa: B018
    run.source.shipped = ship(run, (0,), tmp_path / "shipped")
    return run


def test_what_came_is_taken_where_nothing_is_kept_and_not_for_a_run_from_nothing(lab, tmp_path):
    said = []
    laptop = Run(lab.source, tmp_path / "laptop", said.append, progress=False, make=False)
    ours, theirs = laptop.predictions(0), lab.predictions(0)
    assert all(np.array_equal(ours[m].probabilities, theirs[m].probabilities) for m in theirs)
    assert laptop.reasons() == {} and repr(laptop.head()) == repr(lab.head())
    assert [line[:6] for line in said].count("[came]") == 1 and "`run` trains anew" in str(said)
    passed_on = export(laptop, tmp_path / "on.zip", only_kept=True, pictures="none")
    card = install(passed_on, tmp_path / "elsewhere")
    there = open_run(data=card, runs=tmp_path / "elsewhere", say=quiet, make=False).predictions(0)
    assert np.array_equal(there[TUNED].probabilities, ours[TUNED].probabilities)
    with pytest.raises(NotMadeError):
        laptop.vision()
    anew = Run(lab.source, laptop.folder, quiet, progress=False, make=False, shipped=False)
    with pytest.raises(NotMadeError, match="zero_shot"):
        anew.predictions(0)


def test_packing_again_keeps_what_fits_and_drops_what_does_not(lab):
    folder = lab.source.shipped
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "tuned-of-an-older-version.zip").touch()
    ship(lab, (0,), folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_agreement_is_of_each_model_with_its_interval(lab):
    results, other = Results(lab), Results(lab)
    wrong = results.predictions[0][TUNED]
    other.predictions[0] = other.predictions[0] | {
        TUNED: type(wrong)(**vars(wrong) | {"labels": tuple(reversed(wrong.labels))})
    }
    lines = agreement(results, other).splitlines()[1:]
    assert len(lines) == len(results.models)
    assert [line.partition("]")[0] for line in lines].count("[differs") == 1


@pytest.mark.slow
def test_the_run_in_the_course_is_of_todays_stages(tmp_path, capsys):
    """Where it is not: ``python -m emokd_utils ship``, once for all changed stages."""
    came = built_in_run(tmp_path, quiet, make=False)
    for seed in SEEDS:
        assert len(came.predictions(seed)[TUNED]) == 1200
    assert came.costs().shape[0] == 3 and len(came.tuned(0, "generate")) == 1200
    assert len(came.explanations()) == 120 and set(came.explanations()) <= set(came.reasons())
    assert came.head().settings.alpha == 0.5 and came.tuned_vlm(0).core
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 9e6
    assert main(["run", "--shipped"]) == 0 and "EmoVLM-KD, concat linear" in capsys.readouterr().out
