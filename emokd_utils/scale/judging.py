"""Which answers of a large model can be learnt from (lesson 4)."""

import re

from ..answers import REFUSAL, without_marks
from ..emotions import LabelSet
from ..instructions import LEAKED, leaks

PROMPT = (
    "People who were shown this image said that it evokes {label}. Explain it to somebody who is "
    "learning to see why. Answer in English, with exactly these two sections, in full sentences:\n"
    "\nKey elements: what the image shows and how it looks (things, people, setting, colours, "
    "light), in two to four sentences.\n"
    "\nReasoning: how these elements lead to what the image evokes, in two to four sentences.\n"
    "\nKeep to what can be seen. Use neither the word {label} nor any form of it, in either section."
)
AGAIN = "\n\nAn earlier answer could not be used: {hint}. Write a new one."
HINTS = {
    "refused": "it declined, though only the look of a picture is asked for",
    "section missing": "it had not both sections under their headings",
    "cut off": "it was too long",
    "too short": "a section was too short",
    "too long": "a section was too long",
    "not English": "it was not in English sentences",
    LEAKED: "it used the word that must not be used, or a form of it",
}
"""What is wrong with an answer -> how the model is told so when it is asked again."""

_SECTIONS = re.compile(
    r"(?ims)^[\s#>*_\d.()-]*key\s+elements\b[\s*_]*:?[\s*_]*(.*?)"
    r"^[\s#>*_\d.()-]*reasoning(?:\s+process)?\b[\s*_]*:?[\s*_]*(.*)"
)
_FUNCTION_WORDS = frozenset(  # of English, and of no neighbouring language
    "the and to with are it that this which by their its from there these they into while but "
    "not could may".split()
)


def judge(text: str, label: str, label_set: LabelSet, finish: str = "stop") -> tuple[dict, str]:
    """The texts of an answer by kind (conversation, reasoning) and "", or {} and what is wrong, a key
    of HINTS. finish: the server's finish reason."""
    text = without_marks(text)
    if finish == "content_filter" or REFUSAL.search(text[:60]):
        return {}, "refused"
    if finish == "length":
        return {}, "cut off"
    match = _SECTIONS.search(text)
    if not match:
        return {}, "section missing"
    sections = dict(zip(("conversation", "reasoning"), map(_tidy, match.groups()), strict=True))
    wrong = [_wrong(section, label, label_set) for section in sections.values()]
    return ({}, wrong[0] or wrong[1]) if any(wrong) else (sections, "")


def _wrong(section: str, label: str, label_set: LabelSet) -> str:
    words = re.findall(r"[^\W\d_]+", section.lower())
    if REFUSAL.search(section[:60]):
        return "refused"
    if not 8 <= len(words) <= 150:
        return "too long" if len(words) > 150 else "too short"
    if sum(word in _FUNCTION_WORDS for word in words) < 0.08 * len(words):
        return "not English"
    return LEAKED if leaks(section, label, label_set) else ""


def _tidy(section: str) -> str:  # without Markdown's emphasis and bullets
    return " ".join(re.sub(r"(?m)^\s*[-*•]\s+", "", section).replace("**", "").split())
