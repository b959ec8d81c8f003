import ast
import importlib
import importlib.util
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from emokd_utils import checks
from emokd_utils.emotions import EKMAN
from emokd_utils.profiles import MINI, reduced, with_settings
from emokd_utils.run import open_run
from emokd_utils.scale.archive import export, install
from emokd_utils.world.scenes import make_scene

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402

MASTERS = build.masters()
FORMS = list(build.FORMS)
LESSONS = {m.stem.partition("_")[0].lstrip("0") or "0": m for m in MASTERS}
SECTIONS = [
    "What you will be able to do",
    "Minutes and machine",
    "The idea",
    "Summary",
    "Exercises",
    "Further reading",
]
each_master = pytest.mark.parametrize("master", MASTERS, ids=lambda m: m.stem)
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda f: f or "student")


def built(master, form):
    return nbformat.read(build.target(master, form), as_version=4)


def texts(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def output_texts(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield output.text
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield data if isinstance(data, str) else "".join(data)


def test_the_lessons_are_those_that_have_checks():
    assert set(LESSONS) == set(checks.LESSONS)


@each_master
def test_sections_come_in_the_fixed_order(master):
    text = "\n".join(texts(build.source(master), "markdown"))
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [h for h in headings if h in SECTIONS] == SECTIONS
    assert headings[:3] == SECTIONS[:3]
    assert headings[-3:] == SECTIONS[3:]
    assert build.MEASURED in text


@each_master
def test_cells_are_short_and_ask_for_a_prediction(master):
    notebook = build.source(master)
    lengths = [len(code.splitlines()) for code in texts(notebook, "code")]
    assert statistics.median(lengths) <= 10
    text = "\n".join(texts(notebook, "markdown"))
    assert text.count("**Predict before you run.**") >= 2


@each_master
def test_exercises_have_cards_and_their_minutes_add_up(master):
    found = build.cards(master)
    text = master.read_text("utf-8")
    assert len(found) == text.count("# ### Exercise ") >= 3
    assert sum(card.checked for card in found) >= 2
    assert sum(not card.checked for card in found) >= 1
    lesson = master.stem.partition("_")[0].lstrip("0") or "0"
    assert [c.number for c in found if c.checked] == list(checks.exercises(lesson))
    assert all(c.number.rpartition(".")[0] == lesson for c in found)
    said = re.search(r"minutes to read and run, (\d+) more for\s+#?\s*the exercises", text)
    assert int(said[1]) == sum(card.minutes for card in found)
    for card in found:
        part = text.partition(f"# ### Exercise {card.number} ")[2].partition("# ### Exercise ")[0]
        assert ("*Rubric" in part) != card.checked
        assert not card.checked or "<details><summary>" in part


@each_master
def test_titles_of_checks_are_those_of_the_exercises(master):
    lesson = master.stem.partition("_")[0].lstrip("0") or "0"
    known = checks.exercises(lesson)
    for card in build.cards(master):
        if card.checked:
            assert known[card.number].title == card.title


@each_master
def test_every_name_of_the_library_exists(master):
    for code in texts(build.solved(build.source(master)), "code"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("emokd_utils"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found = hasattr(module, alias.name) or importlib.util.find_spec(inner)
                    assert found, inner


@each_master
def test_names_of_the_library_in_prose_exist(master):
    text = "\n".join(texts(build.source(master), "markdown"))
    for name in set(re.findall(r"`emokd_utils\.([\w.]+?)`", text)):
        part, path = importlib.import_module("emokd_utils"), "emokd_utils"
        for piece in name.split("."):
            path += f".{piece}"
            known = hasattr(part, piece)
            part = getattr(part, piece) if known else importlib.import_module(path)


@each_master
def test_links_and_references_resolve(master):
    text = "\n".join(texts(build.source(master), "markdown"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            assert (build.HERE / target.partition("#")[0]).exists(), target
    for number in re.findall(r"[Ll]essons? (A?\d+)\b", text):
        assert number in LESSONS
    own = {card.number for m in MASTERS for card in build.cards(m)}
    assert set(re.findall(r"[Ee]xercise (A?\d+\.\d+)\b", text)) <= own


@each_master
def test_notebooks_are_what_their_master_gives(master):
    assert build.drift(master) == []


def test_a_change_of_a_master_is_noticed(tmp_path, monkeypatch):
    master = MASTERS[0]
    changed = tmp_path / master.name
    changed.write_text(master.read_text("utf-8") + "\n# %%\n1 + 1\n", encoding="utf-8")
    assert "is not what its master gives" in build.drift(changed)[0]


@each_form
@each_master
def test_committed_outputs_are_clean(master, form):
    path = build.target(master, form)
    assert path.stat().st_size <= 1.5e6
    notebook = built(master, form)
    nbformat.validate(notebook)
    kinds = {o.output_type for c in notebook.cells for o in c.get("outputs", [])}
    assert kinds <= {"stream", "display_data", "execute_result"}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.get("name", "stdout") == "stdout", output.text
        assert cell.cell_type != "code" or cell.execution_count or not cell.source.strip()
    for text in output_texts(notebook):
        assert not re.search(r"Warning\b|it/s\]|s/it\]|Traceback", text)
        assert not re.search(r"(?<![\w.])/(work|home|root|tmp|Users|usr|opt)/", text)


@each_form
@each_master
def test_committed_figures_have_alt_text(master, form):
    for cell in built(master, form).cells:
        for output in cell.get("outputs", []):
            assert "image/png" not in output.get("data", {}), cell.source
            page = output.get("data", {}).get("text/html", "")
            for picture in re.findall(r"<img [^>]*>", page):
                assert len(re.search(r'alt="([^"]*)"', picture)[1]) > 20


@each_master
def test_checks_say_not_attempted_to_students_and_passed_in_the_solutions(master):
    checked = [card.number for card in build.cards(master) if card.checked]
    for form, status in (("", checks.NOT_ATTEMPTED), ("solutions", checks.PASSED)):
        text = "\n".join(output_texts(built(master, form)))
        for number in checked:
            assert f"[{status}] {number} " in text


@each_master
def test_students_see_no_solution(master):
    notebook = built(master, "")
    assert not any("SOLUTION" in cell.source for cell in notebook.cells)
    solution_cells = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution")]
    assert solution_cells
    for cell in solution_cells:
        stub = build.STUB if cell.cell_type == "code" else build.TEXT_STUB
        assert stub in cell.source


def test_the_times_measured_at_building_are_within_the_promise():
    seconds = [
        int(
            re.search(r"this page was built: (\d+) s", "\n".join(texts(built(m, ""), "markdown")))[
                1
            ]
        )
        for m in MASTERS
    ]
    assert max(seconds) <= 60
    assert sum(seconds) <= 300


def test_the_times_of_the_teachers_guide_are_those_of_the_cards():
    guide = (build.HERE / "TEACHING.md").read_text("utf-8")
    assert build.with_times(guide) == guide
    for number in re.findall(r"\b(A?\d{1,2}\.\d)\b(?! (?:%|points))", guide):
        assert any(number == c.number for m in MASTERS for c in build.cards(m)), number


def test_the_mistakes_that_the_teachers_guide_quotes_are_known_by_these_names():
    guide = " ".join((build.HERE / "TEACHING.md").read_text("utf-8").split())
    quoted = re.findall(r'Shows as "([^"]+)"', guide)
    known = {
        text.partition(". ")[0]
        for lesson in checks.LESSONS
        for exercise in checks.exercises(lesson).values()
        for text in exercise.mistakes
    }
    assert len(quoted) >= 4
    assert set(quoted) <= known


def test_grade_ids_are_unique_and_readable_over_the_course():
    ids = [
        cell.metadata.nbgrader.grade_id
        for master in MASTERS
        for cell in build.source(master).cells
        if "nbgrader" in cell.metadata
    ]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"A?\d+-\d+-[a-z-]+", i) for i in ids), ids


def test_the_release_is_a_source_folder_that_nbgrader_accepts(tmp_path):
    from nbgrader.nbgraderformat import reads

    build.release(tmp_path)
    found = sorted((tmp_path / "source").glob("*/*.ipynb"))
    assert [p.stem for p in found] == [m.stem for m in MASTERS]
    for path in found:
        assert path.parent.name == path.stem
        reads(path.read_text("utf-8"), as_version=4)


TINY = """# %% nbgrader={"grade_id": "1-1-area", "solution": true}
def area(r):
    ### BEGIN SOLUTION
    return 3 * r * r
    ### END SOLUTION

# %% nbgrader={"grade_id": "1-1-check", "grade": true, "locked": true, "points": 2}
assert area(2) == 12
"""


@pytest.mark.slow
def test_nbgrader_releases_no_solution_and_odd_submissions_stop_nobody(tmp_path, monkeypatch):
    (tmp_path / "tiny.py").write_text(TINY)
    monkeypatch.setattr(build, "masters", lambda: [tmp_path / "tiny.py"])
    # nbgrader calls a command of its environment by name, as when the environment is activated
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    build.release(tmp_path)
    (tmp_path / "source" / "tiny" / "tiny.md").write_text(TINY)  # as jupytext pairs them
    nbgrader = [sys.executable, "-m", "nbgrader"]
    subprocess.run([*nbgrader, "generate_assignment", "tiny", "--create"], cwd=tmp_path, check=True)
    (made,) = (tmp_path / "release" / "tiny").iterdir()
    text = made.read_text("utf-8")
    assert "SOLUTION" not in text and build.STUB.splitlines()[-1] in text
    for who in ("a_copied", "b_deleted", "c_bare", "d_sound"):
        notebook = nbformat.reads(text, as_version=4)
        code, check = notebook.cells[-2:]
        code.source = "def area(r):\n    return 3 * r * r"
        notebook.cells += [code, check] if who == "a_copied" else []
        notebook.cells = notebook.cells[: -1 if who == "b_deleted" else None]
        if who == "c_bare":
            code.metadata = check.metadata = {}
        handed = tmp_path / "submitted" / who / "tiny" / "tiny.ipynb"
        handed.parent.mkdir(parents=True)
        nbformat.write(notebook, handed)
    ran = subprocess.run([*nbgrader, "autograde", "tiny"], cwd=tmp_path, capture_output=True)
    assert b"copy the answers into the released notebook" in ran.stderr
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as book:
        scores = {s.student.id: s.score for s in book.assignment_submissions("tiny")}
    assert scores == {"a_copied": 2, "b_deleted": 2, "c_bare": 0, "d_sound": 2}


SMALL = "images_per_split=96 vision.epochs=2 tuning.epochs=1 head.epochs=5 gate.epochs=20"
"""What `profiles.reduced` changes, for the lesson that trains."""


def executed(master):
    """What the solved notebook prints; an error in a cell is raised."""
    notebook = build.solved(build.source(master))
    build.execute(notebook, build.target(master, "solutions").parent)
    return "\n".join(output_texts(notebook))


def assert_solved(master):
    text = executed(master)
    for card in build.cards(master):
        if card.checked:
            assert f"[{checks.PASSED}] {card.number} " in text
    return text


def test_small_is_what_reduced_is():
    assert with_settings(MINI, SMALL.split()) == reduced(MINI)


@pytest.mark.slow
@pytest.mark.parametrize("number", LESSONS)
def test_solved_notebooks_execute_whole(number, tmp_path, monkeypatch):
    """On the run that comes with the course; but for lesson 2, nothing is trained for it."""
    monkeypatch.setenv("EMOKD_RUNS", str(tmp_path))
    monkeypatch.setenv("EMOKD_SET", SMALL if number == "2" else "")
    assert_solved(LESSONS[number])
    assert number == "2" or not list(tmp_path.glob("*/vision_model-*"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of Ekman's six, of another size than ours, without cues or captions."""
    home = tmp_path_factory.mktemp("lab") / "photos-for-a-test"
    for split, count in (("train", 96), ("val", 48), ("test", 96)):
        for k in range(count):
            folder = home / split / EKMAN.labels[k % 6]
            folder.mkdir(parents=True, exist_ok=True)
            make_scene(split, k, seed=7).image.resize((150, 120)).save(folder / f"{k}.jpg")
    return home


@pytest.fixture(scope="module")
def imported(photos, tmp_path_factory):
    """A run of them that came as an archive."""
    home = tmp_path_factory.mktemp("laptop")
    run = open_run(reduced(MINI), photos, home / "runs", say=lambda line: None, progress=False)
    run.predictions(), run.costs(), run.tuned(method="generate")
    return install(export(run, home / "lab.zip", only_kept=True), home / "elsewhere")


@pytest.mark.slow
def test_lessons_work_from_an_imported_run_of_ones_own_images(imported, monkeypatch):
    monkeypatch.setenv("EMOKD_RUN", str(imported))
    for number in ("7", "8"):
        assert_solved(LESSONS[number])


@pytest.mark.slow
def test_a_lesson_works_with_weights_in_four_bits_and_a_vision_transformer(
    photos, tmp_path, monkeypatch
):
    """As the profile `paper` has them, with small models in their place."""
    pytest.importorskip("bitsandbytes")
    small = "images_per_split=24 vision.weights= vision.image_size=64 vision.epochs=1 "
    small += f"tuning.epochs=1 gate.epochs=3 further_vision= vlm={MINI.vlm.name} "
    small += "vision=vit_tiny_patch16_224"
    values = {"PROFILE": "paper", "DATA": photos, "SET": small, "RUNS": tmp_path / "runs"}
    for name, value in values.items():
        monkeypatch.setenv(f"EMOKD_{name}", str(value))
    # bitsandbytes keeps what has answered in a layout of some CPUs, which cannot learn any more
    startup = tmp_path / "profile_default" / "startup" / "layout.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("from bitsandbytes.nn import modules as m; m.has_avx512bf16 = bool\n")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    executed(LESSONS["5"])
    assert list((tmp_path / "runs").glob(f"paper-{photos.name}/scanned-*"))
