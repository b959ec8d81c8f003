"""The house: which module may import which, how long anything may be, what CONTRIBUTING.md says of it.

``python tests/test_house.py`` prints the five that are nearest to their limit.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "emokd_utils"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

BASE = "errors lazy files tables settings profiles processes evidence training".split()
LESSONS = """
    emotions images folders scan data predictions pixels weights probe vision families answers
    instructions loading scoring vlm packing tuning complementarity comparison maps explanations
    distillation gates gating emovlm_kd costs forecast
""".split()
ROOMS = [("figures", "world"), ("run",), ("checks", "explorer", "scale"), ("cli",)]
"""Each may import those before it, and none beside it."""

LIMITS = {"lesson": 250, "module": 400, "function": 45}
TOTALS = {
    "Python in the package": (14_690, "emokd_utils/**/*.py"),  # wanted: 13,000
    "Python in checks": (3_200, "emokd_utils/checks/*.py"),
    "JavaScript and CSS": (1_900, "emokd_utils/**/*.[jc]s*"),
    "tests": (8_060, "tests/*.py"),
}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
PACKAGES = {name_of(path) for path in PACKAGE.rglob("__init__.py")}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def place(module: str) -> tuple[int, int]:
    """Storey and order within it: a module imports what has a lower place."""
    room = room_of(module)
    for storey, order in enumerate((BASE, LESSONS)):
        if room in order:
            return storey, order.index(room)
    storey = next(k for k, rooms in enumerate(ROOMS) if room in rooms)
    return 2 + storey, 0


def imported(module: str, node: ast.AST) -> list[tuple[str, str]]:
    """Own modules that a statement imports, lazily too, each with the name taken from it."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy":
        return [(node.args[0].value, "")]
    if not isinstance(node, ast.ImportFrom) or not node.level:
        return []
    parts = module.split(".") if module else []
    if module not in PACKAGES:
        parts = parts[:-1]
    base = ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
    found = []
    for alias in node.names:
        inner = f"{base}.{alias.name}".strip(".")
        found.append((inner, "") if inner in MODULES else (base, alias.name))
    return found


ARROWS = [
    (module, target, name)
    for module, tree in MODULES.items()
    for node in ast.walk(tree)
    for target, name in imported(module, node)
    if module and target
]
"""(module, module that it imports, name) for every import, wherever it stands."""


def test_a_module_imports_only_what_lies_below_it():
    assert not [
        f"{module} imports {target} ({name})"
        for module, target, name in ARROWS
        if module != "__main__" and room_of(module) != room_of(target)
        if place(target) >= place(module)
    ]


def test_rooms_hold_no_circle():
    modules = MODULES.keys() - PACKAGES  # a package that hands on its modules' names is no part
    below = {m: {t for n, t, _ in ARROWS if n == m != t} for m in modules}
    TopologicalSorter(below).prepare()  # raises a CycleError that names them


def test_no_private_name_crosses_a_module():
    wrong = [f"{m} takes {t}.{n}" for m, t, n in ARROWS if n.startswith("_") and n != "__version__"]
    for module, tree in MODULES.items():
        own = {target.rpartition(".")[2] for m, target, _ in ARROWS if m == module}
        wrong += [
            f"{module} reads {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in own
            and node.attr.startswith("_")
        ]
    assert not wrong


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_has_its_one_place_is_nowhere_else(module):
    tree, room = MODULES[module], room_of(module)
    text = ast.unparse(tree)
    assert room in ("run", "cli") or "os.environ" not in text and "getenv" not in text
    assert "TYPE_CHECKING" not in text
    mains = [n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "main"]
    assert room == "cli" or not mains, "commands are in cli"
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [node for node in ast.walk(function) if imported(module, node)]
            assert not inner, f"{function.name} imports an own module when it is called"


def count(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def measured() -> list[tuple[str, int, int]]:
    """Every module, function and total with its lines and its limit."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = name_of(path)
        kind = "lesson" if module in LESSONS else "module"
        found.append((module or "emokd_utils", count(path), LIMITS[kind]))
        for node in ast.walk(MODULES[module]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                found.append((f"{module}.{node.name}()", lines, LIMITS["function"]))
    for what, (limit, pattern) in TOTALS.items():
        found.append((what, sum(count(path) for path in ROOT.glob(pattern)), limit))
    return found


def test_nothing_is_longer_than_it_may_be():
    assert not [f"{what}: {n} of {limit} lines" for what, n, limit in measured() if n > limit]


def test_recipes_are_short_and_name_what_there_is():
    recipes = re.findall(
        r"^## (Add .+?)\n\n(.+?)\n(?=\n|\Z)", CONTRIBUTING, re.MULTILINE | re.DOTALL
    )
    assert [name.split()[-1] for name, _ in recipes] == ["stage", "gate", "model", "exercise"]
    for name, text in recipes:
        assert len(text.splitlines()) <= 10, name
    for path in re.findall(r"`((?:\w+/)*\w+(?:/|\.py|\.md))`", CONTRIBUTING):
        places = [ROOT / path, ROOT / "emokd_utils" / path, ROOT / "notebooks" / path]
        assert any(place.exists() for place in places), path


def test_the_drawing_names_every_module_and_room():
    drawing = CONTRIBUTING.partition("```")[2].partition("```")[0]
    there = {path.stem for path in (ROOT / "emokd_utils").glob("[a-z]*.py")}
    rooms = {path.parent.name for path in (ROOT / "emokd_utils").glob("*/__init__.py")}
    assert there | rooms <= set(re.findall(r"\w+", drawing))


if __name__ == "__main__":
    nearest = sorted(measured(), key=lambda m: m[1] / m[2], reverse=True)
    for what, lines, limit in nearest[:5]:
        print(f"{lines:6,} of {limit:6,} lines  {what}")
    raise SystemExit(nearest[0][1] > nearest[0][2])
