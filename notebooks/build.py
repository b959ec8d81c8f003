"""Build the notebooks from their masters (``masters/*.py``, jupytext's percent format).

    python notebooks/build.py                 # every lesson: build and execute both forms
    python notebooks/build.py 07 A1           # these
    python notebooks/build.py --check         # do the committed notebooks fit their masters?
    python notebooks/build.py --run           # execute the committed notebooks, write nothing
    python notebooks/build.py --release DIR   # an assignment source folder for nbgrader
    python notebooks/build.py --times         # write the times of TEACHING.md anew from the cards

A master holds the solved notebook. Cells carry nbgrader's metadata, of which only what is not the
default is written; solutions stand between nbgrader's delimiters. From it come the student's
notebook (solutions taken out) and the solved one (delimiters taken out). The line
``<!-- measured -->`` of the header becomes the time that execution took.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
MASTERS = HERE / "masters"
STUB = "# YOUR CODE HERE"
TEXT_STUB = "*Your answer here.*"
MEASURED = "<!-- measured -->"
WIDGET = "application/vnd.jupyter.widget-view+json"
GRADING = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_CARD = re.compile(
    r"^# ### Exercise (?P<number>\w+\.\d+) (?P<title>.+)\n#\n"
    r"# \| difficulty \| minutes \| trains \|\n# \| --- \| --- \| --- \|\n"
    r"# \| (?P<difficulty>[●○]{3}) \| (?P<minutes>\d+) \| (?P<trains>.+) \|$",
    re.MULTILINE,
)
_READING = re.compile(r"About (\d+) minutes to read and run")
TIMES = ("<!-- times: written by notebooks/build.py --times -->", "<!-- end of times -->")


def masters(numbers: list[str] = ()) -> list[Path]:
    """The masters of the lessons given by number (``07``, ``A1``), or all."""
    found = sorted(MASTERS.glob("*.py"))
    chosen = [p for p in found if not numbers or p.stem.partition("_")[0] in numbers]
    if missing := set(numbers) - {p.stem.partition("_")[0] for p in chosen}:
        raise SystemExit(f"no master has the number {', '.join(sorted(missing))}")
    return chosen


@dataclass(frozen=True)
class Card:
    """The card of an exercise. ``checked``: there is a check; else it is open, with a rubric."""

    number: str
    title: str
    difficulty: str
    minutes: int
    trains: str
    checked: bool


def cards(master: Path) -> list[Card]:
    """The cards of a master's exercises, in their order."""
    text = master.read_text(encoding="utf-8")
    return [
        Card(
            **{k: v for k, v in found.groupdict().items() if k != "minutes"},
            minutes=int(found["minutes"]),
            checked=f'checks.check("{found["number"]}"' in text,
        )
        for found in _CARD.finditer(text)
    ]


def reading_minutes(master: Path) -> int:
    """Minutes to read and run the lesson, as its first cell says."""
    return int(_READING.search(master.read_text(encoding="utf-8"))[1])


def times() -> str:
    """The tables of times in TEACHING.md, from the masters' headers and cards."""
    lines = [
        "| lesson | to read and run | exercises | in all |",
        "| --- | --- | --- | --- |",
    ]
    single = []
    for master in masters():
        reading, found = reading_minutes(master), cards(master)
        exercise = sum(card.minutes for card in found)
        lines.append(f"| `{master.stem}` | {reading} | {exercise} | {reading + exercise} |")
        single += [
            f"| {c.number} | {c.title} | {c.difficulty} | {c.minutes} | "
            f"{'check' if c.checked else 'rubric'} |"
            for c in found
        ]
    head = [
        "",
        "| exercise | | difficulty | minutes | graded by |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *head, *single])


def with_times(text: str) -> str:
    """TEACHING.md's text with the tables between its marks written anew."""
    before, _, rest = text.partition(TIMES[0])
    return f"{before}{TIMES[0]}\n\n{times()}\n\n{TIMES[1]}{rest.partition(TIMES[1])[2]}"


def source(master: Path) -> nbformat.NotebookNode:
    """The solved notebook with delimiters, nbgrader's metadata complete and cell ids that depend on
    nothing but the cells' texts."""
    import jupytext

    notebook = jupytext.read(master, fmt="py:percent")
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader = GRADING | dict(cell.metadata.nbgrader)
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:10]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = f"{digest}-{seen[digest]}"
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def student(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without solutions."""
    from nbconvert.exporters.exporter import ResourcesDict
    from nbgrader.preprocessors import ClearSolutions

    clear = ClearSolutions(code_stub={"python": STUB}, text_stub=TEXT_STUB, enforce_metadata=True)
    return clear.preprocess(notebook, ResourcesDict())[0]


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its solutions, without the delimiters."""
    for cell in notebook.cells:
        lines = cell.source.split("\n")
        cell.source = "\n".join(x for x in lines if not re.match(r"\s*### (BEGIN|END) SOLUTION", x))
    return notebook


FORMS = {"": student, "solutions": solved}
"""Folder below ``notebooks/`` -> what makes its notebooks from a source."""


def execute(notebook: nbformat.NotebookNode, cwd: Path) -> float:
    """Run the notebook in place; returns seconds. Checks note no progress while it runs."""
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "EMOKD_PROGRESS": str(Path(folder) / "progress.json"),
            "TQDM_DISABLE": "1",
            "MPLBACKEND": "agg",
        }
        client = NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(cwd)}},
            coalesce_streams=True,  # whatever the moments at which they were flushed
            store_widget_state=False,  # a megabyte for each explorer, and dead without a kernel
        )
        client.execute(env=environment)
    return time.time() - begin


def clean(notebook: nbformat.NotebookNode, seconds: float) -> None:
    """Leave of the outputs only what a reader needs: no paths of this machine, no timestamps."""
    root = str(HERE.parent)

    def without_root(text: str) -> str:
        return text.replace(root + "/", "").replace(root, ".")

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("slide", None)  # docs/make.py reads it in the master
        if MEASURED in cell.source:
            said = (
                f"Measured when this page was built: {seconds:.0f} s on {os.cpu_count()} CPU cores, "
                "with the pipeline's results present."
            )
            cell.source = cell.source.replace(MEASURED, said)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)  # what remains says what was there, in words
            if output.output_type == "stream":
                output.text = without_root(output.text)
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = without_root(data)


def target(master: Path, form: str) -> Path:
    """Where a form of the notebook is written."""
    return HERE / form / f"{master.stem}.ipynb"


def build(master: Path, form: str, write: bool = True) -> float:
    """Build and execute a form of a master; returns the seconds of execution."""
    notebook, where = FORMS[form](source(master)), target(master, form)
    where.parent.mkdir(exist_ok=True)
    seconds = execute(notebook, where.parent)
    clean(notebook, seconds)
    if write:
        nbformat.validate(notebook)
        nbformat.write(notebook, where)
    print(f"{where.relative_to(HERE.parent)}: {seconds:.0f} s", flush=True)
    return seconds


def run(master: Path) -> float:
    """Execute the committed students' notebook of a master and write nothing; needs no development
    dependency."""
    where = target(master, "")
    seconds = execute(nbformat.read(where, as_version=4), where.parent)
    print(f"{where.relative_to(HERE.parent)}: {seconds:.0f} s", flush=True)
    return seconds


def plain_sources(notebook: nbformat.NotebookNode) -> list[tuple]:
    """What must agree between a master and its committed notebook: kind, text, grading."""
    measured = re.compile(r"Measured when this page was built: .*")
    return [
        (
            c.cell_type,
            measured.sub(MEASURED, c.source),
            json.dumps(c.metadata.get("nbgrader"), sort_keys=True),
        )
        for c in notebook.cells
    ]


def drift(master: Path) -> list[str]:
    """How the committed notebooks differ from what their master gives: a sentence for each."""
    found = []
    for form, make in FORMS.items():
        where = target(master, form)
        name = where.relative_to(HERE.parent)
        if not where.exists():
            found.append(f"{name} is missing: run make notebooks")
            continue
        wanted, there = (
            plain_sources(n) for n in (make(source(master)), nbformat.read(where, as_version=4))
        )
        if wanted != there:
            number = next(
                (
                    k
                    for k, pair in enumerate(zip(wanted, there, strict=False))
                    if pair[0] != pair[1]
                ),
                min(len(wanted), len(there)),
            )
            found.append(
                f"{name}, cell {number + 1}, is not what its master gives: run make notebooks"
            )
    return found


NBGRADER_CONFIG = '''"""nbgrader for this course: its stubs, and what students hand in."""

from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    NbGraderPreprocessor,
    OverwriteCells,
    OverwriteKernelspec,
)


class KeepFirst(NbGraderPreprocessor):
    """Of a graded cell that a student has copied the first counts, the copy is a cell of the student's."""

    def preprocess(self, nb, resources):
        seen = set()
        for cell in nb.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name is None or name in seen:
                if cell.metadata.pop("nbgrader", None):
                    self.log.warning("Cell %s is there twice: the first one counts", name)
            seen.add(name)
        if seen <= {None}:
            raise ValueError("no cell knows its exercise: copy the answers into the released notebook")
        return nb, resources


c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "emovlm-kd"
# What jupytext pairs with a notebook of source/ holds the solutions too.
c.CourseDirectory.ignore = [
    *(".ipynb_checkpoints", "__pycache__", ".pytest_cache", "*.pyc"),
    *("*.py", "*.md", "*.Rmd", "*.qmd", "*.myst", "*.R", "*.jl"),
]
c.Autograde.sanitize_preprocessors = [
    *(ClearOutput, KeepFirst, OverwriteKernelspec, OverwriteCells, CheckCellMetadata)
]
c.OverwriteCells.add_missing_cells = True
c.ExecutePreprocessor.timeout = 600
'''


def release(folder: Path) -> None:
    """Write every lesson as an assignment of nbgrader's ``source/`` and a configuration that keeps
    the stubs of this course."""
    for master in masters():
        to = folder / "source" / master.stem / f"{master.stem}.ipynb"
        to.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(source(master), to)
    stubs = f"c.ClearSolutions.code_stub = {{'python': {STUB!r}}}\n"
    stubs += f"c.ClearSolutions.text_stub = {TEXT_STUB!r}\n"
    (folder / "nbgrader_config.py").write_text(NBGRADER_CONFIG + stubs, encoding="utf-8")
    print(f"{folder}: {len(masters())} assignments; next: nbgrader generate_assignment NAME")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", metavar="NUMBER", help="lessons, for example 07 A1")
    parser.add_argument("--check", action="store_true", help="only compare with the masters")
    parser.add_argument("--run", action="store_true", help="execute the committed notebooks")
    parser.add_argument(
        "--try", dest="form", choices=["student", "solved"], help="build, execute, write nothing"
    )
    parser.add_argument(
        "--release", type=Path, metavar="DIR", help="write nbgrader's source folder"
    )
    parser.add_argument("--times", action="store_true", help="write TEACHING.md's times anew")
    args = parser.parse_args(argv)
    if args.release:
        release(args.release)
        return 0
    if args.times:
        guide = HERE / "TEACHING.md"
        guide.write_text(with_times(guide.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    if args.check:
        found = [line for master in masters(args.numbers) for line in drift(master)]
        print("\n".join(found) or "every notebook is what its master gives")
        return 1 if found else 0
    if args.run:
        took = [run(master) for master in masters(args.numbers)]
    elif args.form:
        form = {"student": "", "solved": "solutions"}[args.form]
        took = [build(master, form, write=False) for master in masters(args.numbers)]
    else:
        built = [(m, f, build(m, f)) for m in masters(args.numbers) for f in FORMS]
        took = [seconds for _, form, seconds in built if not form]
    print(f"{len(took)} notebooks: {sum(took):.0f} s in all, the longest {max(took):.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
