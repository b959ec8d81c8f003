"""Checks of lesson A1: what is under a visual token, the next-token loss, a tokenizer's merge."""

import re
from collections import Counter

import torch

from ..checks import Exercise, calls, variants
from .vlm import SCORE_CASES

_BOXES = (
    (0, 0, 40, 40),  # over the first cell, and 12 pixels of the next ones
    (60, 10, 30, 70),  # tall: over two columns and three rows
    (20, 84, 16, 28),  # exactly 8 pixels of two cells: under neither
    (19, 57, 17, 12),  # 9 pixels of one cell, 8 of the other
    (83, 80, 26, 13),  # low and wide
    (28, 53, 56, 12),  # a strip of 3 pixels in one row, of 9 in the next
)
_BOXES_PROBE = calls(*[(k, _BOXES) for k in range(16)], read=sorted)


@variants
def _under(token, boxes, *, rule=lambda *sides: min(sides) > 8, turn=1, first=0, size=1, made=int):
    top, left = (28 * place for place in divmod(token - first, 4)[::turn])
    places = []
    for place, (x, y, width, height) in enumerate(boxes):
        wide = made(min(width + size * x, left + 28) - max(x, left))
        high = made(min(height + size * y, top + 28) - max(y, top))
        if rule(wide, high):
            places.append(place)
    return places


def _by_centre(token, boxes):
    centres = [((y + height / 2) // 28, (x + width / 2) // 28) for x, y, width, height in boxes]
    return [place for place, centre in enumerate(centres) if centre == divmod(token, 4)]


_UNDER = {
    "rows and columns are exchanged. Is token 1 below token 0?": _under(turn=-1),
    "tokens are counted from 1. Which cell do you take for token 0?": _under(first=1),
    "boxes are read as two corners. Third and fourth are its width and height.": _under(size=0),
    "a gap counts as an overlap. What sign has it?": _under(made=abs),
    "any overlap counts. How large should it be?": _under(rule=lambda *sides: min(sides) > 0),
    "exactly 8 pixels are counted as well. Is 8 > 8?": _under(rule=lambda *sides: min(sides) >= 8),
    "the area is compared, not the sides. In a strip of 28 pixels by 3 nothing "
    "can be made out.": _under(rule=lambda wide, high: min(wide, high) > 0 and wide * high > 64),
    "one side is enough. Two conditions are asked for: do both have "
    "to hold, or only one of them?": _under(rule=lambda *sides: min(sides) > 0 and max(sides) > 8),
    "only the middle of a box counts. A large box lies under several tokens.": _by_centre,
}


@variants
def _loss(logits, ids, first, *, begin=0, shift=-1, reduce=torch.mean, scores=torch.log_softmax):
    places = torch.arange(1 if begin < 0 else first + begin, len(ids))
    places = places[places + shift < len(ids)]
    return reduce(-scores(logits, 1)[places + shift, ids[places]])


_LOSSES = {
    "logits and tokens are not shifted. Which logits foretell a token?": _loss(shift=0),
    "shifted the wrong way. Your logits have seen what they foretell.": _loss(shift=1),
    "the question is learnt as well. The answer's tokens alone count.": _loss(begin=-1),
    "the answer's first token is missing. Which logits foretell it?": _loss(begin=1),
    "a sum, not a mean. Twice the length should not cost twice as much.": _loss(reduce=torch.sum),
    "the mean is taken over the whole text. Over how many do you sum, "
    "by how many do you divide?": lambda *given: _loss(reduce=torch.sum)(*given) / len(given[1]),
    "softmax is taken twice. A distribution goes through a softmax once more. Print "
    "a row before each.": _loss(scores=lambda logits, axis: logits.softmax(axis).log_softmax(axis)),
    "logits are taken for logarithms of probabilities. "
    "Do the exponentials of a row sum to 1?": _loss(scores=lambda logits, axis: logits),
}

_WORDS = (
    # "l o" is in most words; counted by how often words occur, "e r" is the more frequent pair.
    {"l o w": 2, "l o t": 1, "l o g": 1, "n e w e r": 5, "w i d e r": 3},
    # "b a" occurs twice in one word; "c d" in more words, but less often.
    {"b a b a": 4, "c d": 3, "c d e": 2, "f g": 1},
    # An odd run: the pair must not overlap with itself.
    {"a a a": 4, "b a a a a": 2, "b c": 3},
    # Neighbours in one word only: "a" ends a word and "b" begins the next.
    {"x a": 3, "b c": 2, "a b": 1},
    # Symbols of several letters: "ab" + "c" is neither "a" + "bc" nor the end of "zab" + "c".
    {"ab c d": 5, "a bc d": 2, "x ab c": 2, "x y": 3, "zab c": 1},
)


def _as_text(result):
    pair, words = result
    return list(pair), {" ".join(word): count for word, count in dict(words).items()}


def _join(word, pair, pattern=r"(?<!\S){} {}(?!\S)", count=0) -> tuple:
    return tuple(re.sub(pattern.format(*pair), "".join(pair), " ".join(word), count=count).split())


def _join_overlapping(word, pair) -> tuple:
    starts = [word[k : k + 2] == pair for k in range(len(word))]
    used = [False, *starts]
    joined = ("".join(pair) if starts[k] else symbol for k, symbol in enumerate(word))
    return tuple(symbol for k, symbol in enumerate(joined) if starts[k] or not used[k])


def _join_text(word, pair) -> tuple:
    joined, text = [], "".join(pair)
    for part in "".join(word).replace(text, f"|{text}|").split("|"):
        joined += [part] if part == text else [symbol for symbol in word if symbol in part]
    return tuple(joined)


@variants
def _step(words, *, join=_join, choose=max, weigh=int, seen=list, lost=False, **how):
    counts = Counter()
    for word, count in words.items():
        for pair in seen(zip(word, word[1:], strict=False)):
            counts[pair] += weigh(count)
    pair = choose(counts, key=counts.get)
    merged = {join(word, pair, **how): count for word, count in words.items()}
    return pair, {w: n for w, n in merged.items() if "".join(pair) in w or not lost}


def _across(words):
    neighbours = zip(words, [*words][1:], strict=False)
    more = {(a[-1], b[0]): words[a] for a, b in neighbours}
    return _step(choose=lambda counts, key: max(counts, key=lambda p: counts[p] + more.get(p, 0)))(
        words
    )


_SPLIT_WORDS = [{tuple(word.split()): n for word, n in words.items()} for words in _WORDS]
_MERGE_PROBE = calls(*[(words,) for words in _SPLIT_WORDS], read=_as_text)
_MERGES = {
    "how often a word occurs is ignored. A frequent word's pairs count more.": _step(weigh=bool),
    "pairs reach from one word into the next. A pair stands in one word.": _across,
    "words are counted, not pairs. A pair may be twice in a word.": _step(seen=dict.fromkeys),
    "only the first place in each word is merged. Look at a word with it twice.": _step(count=1),
    "merges overlap. After one, where does the search go on?": _step(join=_join_overlapping),
    "letters are merged, not symbols. ab + c is not a + bc.": _step(join=_join_text),
    "the pair is found inside a longer symbol. Where does one begin?": _step(pattern="{} {}"),
    "words without the pair are lost. They stay as they are.": _step(lost=True),
    "the rarest pair is taken. Which pair saves the most tokens?": _step(choose=min),
}

EXERCISES = (
    Exercise("A1.1", "Under a visual token", _BOXES_PROBE, _under(), _UNDER),
    Exercise("A1.2", "The next-token loss", calls(*SCORE_CASES), _loss(), _LOSSES),
    Exercise("A1.3", "One merge of the tokenizer", _MERGE_PROBE, _step(), _MERGES),
)
