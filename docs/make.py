"""Build the course's website, or the slides of its class of 90 minutes.

    python docs/make.py site site                   # all pages into the folder site/
    python docs/make.py site site --explorers 06    # live explorers in this lesson alone
    python docs/make.py site site --solutions       # the solved notebooks too
    python docs/make.py site site --repository OWNER/NAME
    python docs/make.py slides site/slides

Pages are the committed notebooks with their outputs. Lessons with an explorer are executed once
more, to write each explorer as a page of its own; nothing is trained for it but what the lesson
trains itself.
"""

import argparse
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import nbformat
from conf import copy_mathjax
from nbconvert import SlidesExporter
from sphinx.cmd.build import build_main

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402

GENERATED = ("lessons", "reference", "extra", "doctrees", "bibliography.md")
EXPLORER = "Explorer("  # how the text of an explorer's output begins
MAX_MB = 4.0  # of an explorer's page

WRITE_EXPLORERS = '''
import base64
from html import escape
from pathlib import Path

from emokd_utils.explorer.widget import Explorer

folder, stem, pages = Path({folder!r}), {stem!r}, {{}}


def picture(explorer, row):
    """One of the images that are shown at first, for a page without JavaScript."""
    data = base64.b64encode(explorer._content.picture(row, 112, 80) or b"").decode()
    shown = explorer.table.iloc[row]
    words = escape(f"{{shown.name}}: {{shown['label']}}, right: {{shown['cell']}}")
    return f'<img src="data:image/webp;base64,{{data}}" alt="{{words}}" title="{{words}}">'


def framed(explorer, include=None, exclude=None):
    """The explorer as a page, one for each content, in a frame that opens at what is shown."""
    if explorer._content not in pages:
        pages[explorer._content] = f"{{stem}}-{{len(pages) + 1}}.html"
        explorer.to_html(folder / pages[explorer._content], view="", max_mb={max_mb})
    a, b = explorer.table.attrs.values()
    rows = explorer.table.index.get_indexer(explorer.selection.index[:10])
    still = "".join(map(picture, [explorer] * len(rows), rows))
    address = f"../explorers/{{pages[explorer._content]}}#{{explorer._view}}"
    title = escape(f"Explorer: {{a}} beside {{b}}, {{len(explorer.selection):,}} images")
    html = (
        f'<iframe class="explorer" src="{{escape(address)}}" title="{{title}}" loading="lazy"></iframe>'
        f'<noscript><p>{{still}}</p></noscript>'
        f'<p><a href="{{escape(address)}}">The explorer as a full page</a></p>'
    )
    return {{"text/html": html, "text/plain": repr(explorer)}}


get_ipython().display_formatter.mimebundle_formatter.for_type(Explorer, framed)
'''


def lesson_pages(form: str, explorers: list[str] | None, repository: str) -> None:
    """The notebooks of a form, made ready for the site."""
    for master in build.masters():
        number = master.stem.partition("_")[0]
        notebook = nbformat.read(build.target(master, form), as_version=4)
        plain = [c for c in notebook.cells if _explorer_outputs(c)]
        if plain and (explorers is None or number in explorers):
            folder = HERE / "extra" / "explorers"
            with_explorers(notebook, build.target(master, form), folder / f"{form}{number}")
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = foldable(cell.source)
        if repository:
            address = f"https://github.com/{repository}/edit/main/notebooks/masters/{master.name}"
            colab = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks"
            where = f"{form}/{master.stem}" if form else master.stem
            line = f"[Open in Colab]({colab}/{where}.ipynb) · [Edit this page]({address})"
            title, _, rest = notebook.cells[0].source.partition("\n")
            notebook.cells[0].source = f"{title}\n\n{line}\n{rest}"
        nbformat.write(notebook, HERE / "lessons" / form / f"{master.stem}.ipynb")


def _explorer_outputs(cell) -> list:
    return [
        output
        for output in cell.get("outputs", [])
        if output.get("data", {}).get("text/plain", "").startswith(EXPLORER)
    ]


def with_explorers(notebook, committed: Path, pages: Path) -> None:
    """Execute a copy of the notebook, and take from it the explorers' frames. pages: how the paths of
    the explorers' pages begin."""
    pages.parent.mkdir(parents=True, exist_ok=True)
    code = WRITE_EXPLORERS.format(folder=str(pages.parent), stem=pages.name, max_mb=MAX_MB)
    executed = nbformat.v4.new_notebook(metadata=notebook.metadata)
    executed.cells = [nbformat.v4.new_code_cell(code), *map(nbformat.from_dict, notebook.cells)]
    build.execute(executed, committed.parent)
    for cell, live in zip(notebook.cells, executed.cells[1:], strict=True):
        for still, moving in zip(_explorer_outputs(cell), _explorer_outputs(live), strict=True):
            still.data = moving.data


def foldable(text: str) -> str:
    """An exercise's card with its text in a part that folds, open at first; hints are closed."""
    head, _, rest = text.partition("\n")
    if not head.startswith("### Exercise "):
        return text
    return f"{head}\n\n<details open><summary>The exercise</summary>\n\n{rest}\n\n</details>\n"


def bibliography() -> str:
    """All that the lessons name as further reading, once, with the lessons that name it."""
    works: dict[str, tuple[str, list[str]]] = {}
    for master in build.masters():
        text = "\n".join(c.source for c in build.source(master).cells if c.cell_type == "markdown")
        reading = text.partition("## Further reading\n")[2]
        for item in re.split(r"^- ", reading, flags=re.MULTILINE)[1:]:
            words = " ".join(item.split())
            if words.startswith(("The paper", "- ")):
                continue
            address = re.search(r"\]\((.+?)\)", words)[1]
            number = master.stem.partition("_")[0]
            works.setdefault(address, (words, []))[1].append(
                f"[{number}](lessons/{master.stem}.ipynb)"
            )
    lines = [
        f"- {words} (lesson {', '.join(dict.fromkeys(used))})" for words, used in works.values()
    ]
    return (
        "# Bibliography\n\nWhat the lessons cite, in the order of the first author.\n\n"
        + "\n".join(
            sorted(lines, key=lambda line: re.sub(r"^- (\w\. ?)+", "", line))  # by surname
        )
    )


def site(to: Path, explorers: list[str] | None, solutions: bool, repository: str) -> int:
    """Write the website into a folder; Sphinx's exit code."""
    for name in GENERATED:
        path = HERE / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for form in build.FORMS if solutions else ("",):
        (HERE / "lessons" / form).mkdir(parents=True)
        lesson_pages(form, explorers, repository)
    (HERE / "extra").mkdir(exist_ok=True)
    (HERE / "bibliography.md").write_text(bibliography(), encoding="utf-8")
    return build_main(["-q", "-b", "html", "-d", str(HERE / "doctrees"), str(HERE), str(to)])


def slides(to: Path) -> int:
    """Write the deck of the class of 90 minutes: a slide for each cell that a master tags with
    ``slide="Title"``, with the cell's text or output; notes are TEACHING's questions."""
    guide = (ROOT / "notebooks" / "TEACHING.md").read_text(encoding="utf-8")
    pages = to.resolve().parent / "explorers"
    cells = [
        new_slide(
            "# EmoVLM-KD\n\nTwo models, right on different images, and one that learns from both"
        )
    ]
    for master in build.masters():
        tagged = build.source(master).cells
        if not any("slide" in cell.metadata for cell in tagged):
            continue
        shown = nbformat.read(build.target(master, "solutions"), as_version=4)
        number = master.stem.partition("_")[0]
        pairs = list(zip(shown.cells, tagged, strict=True))
        if any(_explorer_outputs(cell) and "slide" in tag.metadata for cell, tag in pairs):
            with_explorers(shown, build.target(master, "solutions"), pages / number)
        heading = rf"^### {number} .+?\n(.+?)^##"
        notes = re.search(heading, guide, re.MULTILINE | re.DOTALL)[1]
        for cell, tag in pairs:
            if "slide" in tag.metadata:
                cell.metadata = {"slideshow": {"slide_type": "-"}}
                cells += [new_slide(f"## {tag.metadata['slide']}"), cell]
                if notes:
                    cells.append(new_slide(notes, "notes"))
                    notes = ""
    exporter = SlidesExporter(
        template_file=str(HERE / "templates" / "deck.html.j2"),
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_input_prompt=True,
        exclude_anchor_links=True,
        reveal_url_prefix="reveal.js",
        reveal_theme="white",
    )
    deck = nbformat.v4.new_notebook(
        cells=cells, metadata={"title": "EmoVLM-KD: a class of 90 minutes"}
    )
    to.mkdir(parents=True, exist_ok=True)
    (to / "index.html").write_text(exporter.from_notebook_node(deck)[0], encoding="utf-8")
    package = Path(importlib.util.find_spec("sphinx_revealjs").origin).parent
    for part in ("dist", "plugin/notes"):
        source = package / "_static" / "revealjs" / part
        shutil.copytree(source, to / "reveal.js" / part, dirs_exist_ok=True)
    copy_mathjax(to / "mathjax")
    return 0


def new_slide(text: str, kind: str = "slide"):
    """A cell of text that begins a slide."""
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["site", "slides"])
    parser.add_argument("to", type=Path)
    parser.add_argument(
        "--explorers", nargs="*", metavar="NUMBER", help="lessons with live explorers"
    )
    parser.add_argument("--solutions", action="store_true", help="the solved notebooks too")
    parser.add_argument("--repository", default="", metavar="OWNER/NAME", help="on GitHub")
    args = parser.parse_args(argv)
    if args.what == "slides":
        return slides(args.to)
    return site(args.to, args.explorers, args.solutions, args.repository)


if __name__ == "__main__":
    sys.exit(main())
