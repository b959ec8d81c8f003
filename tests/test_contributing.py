"""The recipes of CONTRIBUTING.md are short and name what there is."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_recipes_are_short_and_name_what_there_is():
    recipes = re.findall(r"^## (Add .+?)\n\n(.+?)\n(?=\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert [name.split()[-1] for name, _ in recipes] == ["stage", "gate", "model", "exercise"]
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
