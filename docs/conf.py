"""Sphinx's configuration of the course's website; ``make.py`` beside it writes what is generated."""

import importlib.util
import re
import shutil
from pathlib import Path

from emokd_utils import __version__

project = "EmoVLM-KD, taught and measured"
author = "The emovlm-kd-notebooks authors"
release = __version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
exclude_patterns = ["doctrees"]

# Lessons: their outputs are those of the committed notebooks.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # explorers are pages of their own
nb_mime_priority_overrides = [("html", "text/html", 0)]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# The package's reference, from its docstrings: plain sentences, with code in backquotes.
apidoc_modules = [
    {
        "path": "../emokd_utils",
        "destination": "reference",
        "separate_modules": True,
        "module_first": True,
        "exclude_patterns": ["../emokd_utils/__main__.py"],
    }
]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them
default_role = "code"
suppress_warnings = ["toc.empty_glob", "toc.glob", "toc.not_included"]

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

# Formulas: MathJax from the installed package, so that no page asks the network; its assistive
# MathML is what screen readers read.
mathjax_path = "mathjax/tex-chtml.js"
_MATHJAX = ("tex-chtml.js", "a11y/assistive-mml.js", "output/chtml/fonts")


def copy_mathjax(folder: Path) -> None:
    """Put the parts of MathJax that pages load into a folder."""
    package = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
    for part in _MATHJAX:
        source, to = Path(package, "static", "mathjax", part), folder / part
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to, dirs_exist_ok=True)
        else:
            shutil.copy(source, to)


def level_of_captions(app, page, template, context, doctree) -> None:
    """Say of a caption in a list of pages, which Sphinx calls a heading, of which level it is."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            level = 'role="heading" aria-level="2"'
            context[part] = context[part].replace('role="heading"', level)


def as_plain_text(app, what, name, obj, options, lines: list[str]) -> None:
    """Keep of reStructuredText in docstrings what they use, code in backquotes and tables, and nothing
    else."""
    if any(line.startswith("===") for line in lines):
        return
    for number, line in enumerate(lines):
        line = re.sub(r"(?<=\w)_(?=\W|$)", r"\_", line.strip()).replace("*", r"\*")
        lines[number] = re.sub(r"(`+[^`]+`+)(?=\w)", r"\1\\ ", line)


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("html-page-context", level_of_captions, priority=900)  # after the theme's own
    app.connect("autodoc-process-docstring", as_plain_text)
    app.connect("build-finished", lambda app, _: copy_mathjax(Path(app.outdir, "_static/mathjax")))
