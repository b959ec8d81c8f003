"""What a VLM's answer names (lesson 3): a label of the set, or nothing, never a guess. An answer that
*declares* a label, in the form asked for or another, counts whatever is written around it. Where none
is declared, one named label counts, if it stands there as a label."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .emotions import LabelSet, normalise

REFUSAL = re.compile(
    r"(?i)\b(?:sorry|as an ai|(?:unable|impossible|not possible|not able) to)\b"
    r"|\b(?:i|we)(?:['’]m| am|['’]re| are) (?:\w+ )?unable\b"
    r"|\b(?:i|we) (?:\w+ )?(?:can(?:no|['’])t|can not|won['’]t|do(?:n['’]t| not) (?:see|have))\b"
    r"|\bno (?:image|picture|photo)\b|\bcan(?:no|['’])t be (?:judged|determined|told|answered)\b"
)
"""An answer that declines, unless it declares a label all the same."""

_THOUGHT = re.compile(r"(?is)<(think(?:ing)?|thought|reasoning)>.*?(?:</\1>|\Z)")
_END_OF_THOUGHT = re.compile(r"(?is)\A.*</(?:think(?:ing)?|thought|reasoning)>")
_SPECIAL_TOKEN = re.compile(
    r"<[|｜][^<>|｜]*[|｜]>|</?(?:s|image|img|video|audio)>|<(?:eos|bos|pad|unk|mask)>|\[/?INST\]"
    r"|<(?:start|end)_of_\w+>|<image_soft_token>|</?tool_\w+>"
)
_QUOTES = "'\"`‘’‚“”„«»‹›「」"
_Q = f"[{_QUOTES}]"
_KEY = re.compile(
    rf"(?i)(?<!\w)(?:(?P<which>[^\W\d_]+)[ _-]+)?"
    r"(?:emotion|sentiment|feeling|label|answer|category|class|prediction)"
    rf"(?:[\s_-]+(?:category|label|class|evoked|conveyed))?\s*{_Q}?\s*(?:is\s*)?[:=：]\s*"
)
_OTHERS = frozenset(  # "secondary emotion: fear" says what the answer is not
    "secondary second other another alternative opposite wrong former previous unlikely least".split()
)
_TAG = re.compile(r"(?i)<(?:answer|emotion|label)>|\\boxed\{(?:\\text\w*\{)?")
_LETTER = re.compile(r"\(?(?:[A-Za-z]|\d\d?)[).:]\s+")
_PLACEHOLDERS = frozenset(("label", "emotion", "category", "answer", "x"))
_END_OF_PROSE = re.compile(
    r"[.;!?\n(<|}—–]|\s-\s|(?i:\b(?:because|since|as|due|given|which|that|where|while|with|though|"
    r"although|but|rather|not|over|instead|for)\b)"
)
_ALONE = re.compile(  # a line or a first sentence that is a label, with a letter before it or not
    rf"(?im)^[\s>#•{_QUOTES}-]*(?:(?:option\s+)?\(?(?:[a-z]|\d\d?)[).:]\s*)?"
    rf"(?P<label>[^\n.,:;!?()]+?)[\s{_QUOTES})]*(?:[.!]|$)"
)
_QUOTE = re.compile(_Q)
_CLOSING = re.compile(rf"{_Q}(?=\s*(?:[}}\],]|$))")
_FURTHER = re.compile(rf"(?:{_Q}\s*,\s*{_Q}[^{_QUOTES}]*(?={_Q}(?!\s*[:=])))*")  # 'awe', 'fear'
_BRACKETS = re.compile(r"(?s)\{.*?\}|\[.*?\]")
_BETWEEN_ITEMS = re.compile(rf"(?i){_Q}[^{_QUOTES}]*{_Q}|\b(?:and|or|also|then)\b|[\W\d_]")
_ITEM = re.compile(r"(?m)^\s*(?:\d+[.)]|[-*•])\s")

_NEGATION = re.compile(
    r"\b(?:no(?!\s+(?:doubt|question))|not(?!\s+(?:only|just|merely))|never|neither|nor|none|nothing"
    r"|nobody|without(?!\s+(?:a\s+)?doubt)|hardly|barely|lacks?|lacking|absence|devoid|free of|free from"
    r"|rather than|instead of|far from|unlike|cannot|less|non|wrong to)\b|n't\b"
)
_DENIED_AFTER = re.compile(  # but "awe, not fear" says awe
    r"[^\w,]*(?:(?:is|are|was|were|would|seems?|does|do|has|can|be)\s+)*(?:\w+\s+)?"
    r"(?:not|never|no|absent|missing|wrong|unlikely|ruled out|lacking|cannot)\b|[^\w,]*(?:\w+n't)\b"
)
_IDIOMS = re.compile(  # where a word is no label though it is spelled like one
    r"\b(?:i'm|i am|we're|we are|i'd be|i would be|i will be|i'll be)\s+(?:\w+\s+){0,2}"
    r"(?:afraid|(?:happy|excited|surprised|amused|sad|positive|scared)\s+(?:to|that|you)\b)"
    r"|\bafraid\s+(?:so|not)\b|\bsad to say\b|\bhappy\s+(?:birthday|hour|new year|ending|to help)\b"
    r"|\b(?:negative|positive)\s+(?:space|pole|terminal|charge|number|film|side|electrode|ion)s?\b"
    r"|\b(?:film|photo|photographic)\s+negatives?\b|\bsurprise\s+(?:party|gift|visit)\b"
    r"|\b(?:word|sign|text|title|caption|banner|label|lettering)s?\b[^.;]*?"
    r"\b(?:reads?|says?|reading|saying|spells?)\b[^.;]*|\bthe words? \S+"
)
_CONTENT = re.compile(  # what a picture shows, unless it is said of somebody
    r"(?P<kept>\b(?:is|are|was|were|be|being|am|feel|feels|feeling|felt|looks?|looking|looked|seems?"
    r"|seemed|appears?|appeared|so|very|quite|perfectly|fully|completely|truly|deeply|a|an"
    r"|(?:happy|calm|relaxed|peaceful|warm|quiet|safe|comfortable)(?:,|\s+and))\s+content\b"
    r"(?!\s+(?:of|polic|warning|moderation|filter|creat|guideline|analys))\w*)"
    r"|\bcontents?\b(?!\W*$)"
)


class _Declared(NamedTuple):
    """Where a declaration stands in a text, and the labels that it names."""

    start: int
    end: int
    labels: frozenset[str]


def parse_answer(text: str, label_set: LabelSet) -> str | None:
    """The label that an answer names, or None: the last declaration that names one label; without a
    declaration the only label named as one, not negated, in a text that is no refusal."""
    answer = without_marks(text)
    for bare in (answer, answer.strip(f" \t\n.!*{{}}{_QUOTES}")):
        if label := label_set.canonical(bare):
            return label
    declared = list(_declarations(answer, label_set))
    if not declared:
        labels = set() if REFUSAL.search(answer) else set(_counted(answer, label_set))
        return labels.pop() if len(labels) == 1 else None
    valid = [declaration for declaration in declared if len(declaration.labels) == 1]
    if not valid or (len(valid) > 1 and _are_list(answer, *valid[-2:])):
        return None
    return min(valid[-1].labels)


def without_marks(text: str) -> str:
    """A text without what was thought aloud, and without special tokens as models write them."""
    return _SPECIAL_TOKEN.sub("", _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text))).strip()


def _declarations(answer: str, label_set: LabelSet) -> Iterator[_Declared]:
    """Every declaration, in order; what stands inside the value of another is none of its own."""
    plain = re.sub(r"[*#~]", " ", answer)  # without Markdown's marks, as long as before
    matches = [match for form in (_KEY, _TAG, _ALONE) for match in form.finditer(plain)]
    end = 0
    for match in sorted(matches, key=re.Match.start):
        if match.start() < end:
            continue
        if match.re is _ALONE:
            label = label_set.canonical(match["label"])
            if label and normalise(match["label"]) != "content":  # a heading
                end = match.end()
                yield _Declared(match.start(), end, frozenset([label]))
        elif match.re is _TAG or (match["which"] or "").casefold() not in _OTHERS:
            value, stop = _value(answer, plain, match.end(), label_set)
            labels = frozenset(_mentioned(value, label_set))
            foreign = re.findall(r"\w+", value.casefold())
            if labels or (0 < len(foreign) <= 3 and not _PLACEHOLDERS.issuperset(foreign)):
                end = stop
                yield _Declared(match.start(), end, labels)


def _value(answer: str, plain: str, start: int, label_set: LabelSet) -> tuple[str, int]:
    if plain[start : start + 1] in ("{", "["):
        inside = _BRACKETS.match(plain, start)
        end = inside.end() if inside else len(plain)
        return ("", start) if _KEY.search(plain, start, end) else (answer[start:end], end)
    if _QUOTE.match(plain, start):
        ends = [match.start() for match in _CLOSING.finditer(plain, start + 1)]
        whole = [end for end in ends if label_set.canonical(answer[start + 1 : end])]
        if whole and not _FURTHER.match(plain, whole[-1]).group():
            return answer[start + 1 : whole[-1]], whole[-1] + 1  # a label may hold quotes
        end = ends[0] if ends else (plain + "\n").index("\n", start)  # cut short
        end = _FURTHER.match(plain, end).end()
        return answer[start + 1 : end], end + 1
    if letter := _LETTER.match(plain, start):
        start = letter.end()
    stop = _END_OF_PROSE.search(plain, start)
    end = stop.start() if stop else len(plain)
    return answer[start:end], end


def _are_list(answer: str, first: _Declared, last: _Declared) -> bool:
    """Whether two declarations of different labels stand side by side as items of a list."""
    lines = [answer[answer.rfind("\n", 0, d.start) + 1 :] for d in (first, last)]
    between = _BETWEEN_ITEMS.sub("", answer[first.end : last.start])
    return first.labels != last.labels and (not between or all(map(_ITEM.match, lines)))


def words_as_labels(text: str) -> str:
    """A text as `normalise` gives it, without the words that are spelled like a label and are none:
    the noun "content", "I'm afraid", "happy birthday"."""
    plain = normalise(re.sub(r"\s*\n\s*", ". ", text).replace("’", "'"))
    plain = _CONTENT.sub(lambda match: match["kept"] or "…", plain)
    return _IDIOMS.sub("…", plain)


def _mentioned(text: str, label_set: LabelSet) -> list[str]:
    if whole := label_set.canonical(text):
        return [whole]
    plain = normalise(text)
    return [label for at, label in mentions(plain, label_set) if not _is_negated(plain, at)]


def mentions(plain: str, label_set: LabelSet) -> Iterator[tuple[re.Match, str]]:
    """Where a normalised text names a label, in any of its forms, and which."""
    forms = sorted(label_set.forms, key=len, reverse=True)
    for match in re.finditer(rf"(?<!\w)(?:{'|'.join(map(re.escape, forms))})(?!\w)", plain):
        yield match, label_set.forms[match[0]]


def _counted(answer: str, label_set: LabelSet) -> Iterator[str]:
    """The labels that stand as such in a text that declares none: in no question, not negated."""
    for clause in re.split(r"(?<=[.;!?])\s|\b(?:but|however)\b|[—–]", words_as_labels(answer)):
        for match, label in mentions(clause, label_set):
            spelled = re.search(r"[^\W\d_]", match[0])
            if spelled and not (_is_negated(clause, match) or clause.endswith("?")):
                yield label


def _is_negated(clause: str, match: re.Match) -> bool:
    before, after = clause[: match.start()], clause[match.end() :]
    return bool(_NEGATION.search(before) or _DENIED_AFTER.match(after))
