"""Checks of lesson A1: what is under a visual token, the next-token loss, a tokenizer's merge."""

import re
from collections import Counter

import torch

from ..checks import Exercise, calls, variants

_UNDER_CASES = {  # token and boxes
    "two boxes over token 0 are not both found": (0, [(0, 0, 28, 28), (0, 0, 40, 40)]),
    "a box over the cells of tokens 0 and 1 is not found for 1": (1, [(4, 0, 36, 28)]),
    "a box over the cells of tokens 0 and 4 is not found for 4": (4, [(0, 4, 28, 36)]),
    "a box that lies elsewhere counts": (0, [(60, 0, 28, 28), (0, 84, 28, 28), (60, 60, 50, 50)]),
    "a strip of 3 or 8 pixels counts": (5, [(28, 40, 28, 3), (40, 28, 3, 28), (38, 28, 8, 28)]),
    "9 pixels by 9 are not enough": (10, [(60, 60, 9, 9)]),
    "a start outside is misread": (5, [(0, 30, 36, 20), (30, 0, 20, 36), (10, 10, 27, 27)]),
    "an end outside is misread": (5, [(48, 30, 50, 20), (30, 48, 20, 50), (47, 47, 60, 60)]),
}
_BOXES = ((0, 0, 40, 40), (60, 10, 30, 70), (19, 57, 17, 12), (83, 80, 26, 13), (28, 53, 56, 12))
_MANY_BOXES = [(token, _BOXES) for token in range(16)]
_BOXES_PROBE = calls(*_UNDER_CASES.values(), *_MANY_BOXES, read=sorted, about=_UNDER_CASES)


@variants
def _under(token, boxes, *, turn=1, first=0, size=1, least=9):
    top, left = (28 * place for place in divmod(token - first, 4)[::turn])
    places = []
    for place, (x, y, width, height) in enumerate(boxes):
        wide = min(width + size * x, left + 28) - max(x, left)
        high = min(height + size * y, top + 28) - max(y, top)
        if min(wide, high) >= least:
            places.append(place)
    return places


_UNDER = {
    "rows and columns are exchanged. Is token 1 below token 0?": _under(turn=-1),
    "tokens are counted from 1. Which cell do you take for token 0?": _under(first=1),
    "boxes are read as two corners. Third and fourth are its width and height.": _under(size=0),
    "any overlap counts. How large should it be?": _under(least=1),
    "exactly 8 pixels are counted as well. Is 8 > 8?": _under(least=8),
}


@variants
def _loss(logits, ids, first, *, begin=0, shift=-1, reduce=torch.mean):
    places = torch.arange(1 if begin < 0 else first + begin, len(ids))
    places = places[places + shift < len(ids)]
    return reduce(-logits.log_softmax(1)[places + shift, ids[places]])


_LOSSES = {
    "logits and tokens are not shifted. Which logits foretell a token?": _loss(shift=0),
    "shifted the wrong way. Your logits have seen what they foretell.": _loss(shift=1),
    "the question is learnt as well. The answer's tokens alone count.": _loss(begin=-1),
    "the answer's first token is missing. Which logits foretell it?": _loss(begin=1),
    "a sum, not a mean. Twice the length should not cost twice as much.": _loss(reduce=torch.sum),
    "the mean is taken over the whole text. Over how many do you sum, "
    "by how many do you divide?": lambda *given: _loss(reduce=torch.sum)(*given) / len(given[1]),
}

_LOGITS = torch.tensor([[2.0, 0, 1], [0, 1, 0], [1, 3, 0], [0, 0, 2]])
_IDS = torch.tensor([0, 2, 1, 0])
_ANSWERS = {
    "the cost of a single token is wrong": (2, 1),
    "a token that is not the answer's changes the result": (3, 2),
    "the costs of several tokens are put together wrongly": (4, 1),
}
_LOSS_CASES = [(_LOGITS[:n], _IDS[:n], first) for n, first in _ANSWERS.values()]
_LOSS_PROBE = calls(*_LOSS_CASES, about=_ANSWERS)

_WORDS = {  # the pair is clear in the first ones, in the later ones it has to be found
    "one word of one pair comes out wrong": {"a b": 2},
    "symbols beside the pair, or other words, change": {"a b": 2, "x a b y": 1, "a": 3, "c": 1},
    "a word that holds the pair more than once comes out wrong": {"b a b a": 4, "c b a d b a": 1},
    "merges overlap, or do not begin on the left": {"a a a": 4, "b a a a a": 2, "b c": 3},
    "longer symbols come out wrong": {"ab c d": 5, "a bc d": 2, "ab c": 2, "zab c": 1, "ab cd": 1},
    "a frequent word does not weigh more": {"l o": 2, "l o w": 1, "l o t": 1, "g n e": 3, "n e": 2},
    "not each place of a pair counts": {
        "b a b a": 4,
        "c d": 3,
        "c d e": 2,
        "a b": 1,
        "longest er": 3,
    },
    "pairs across words or gaps count": {"d c": 1, "a": 7, "b a": 2, "c d": 3, "c": 1, "b e a": 2},
}


def _as_text(result):
    pair, words = result
    return list(pair), {" ".join(word): count for word, count in dict(words).items()}


def _join(word, pair, pattern=r"(?<!\S){} {}(?!\S)", count=0) -> tuple:
    return tuple(re.sub(pattern.format(*pair), "".join(pair), " ".join(word), count=count).split())


@variants
def _step(words, *, choose=max, weigh=int, seen=list, **how):
    counts = Counter()
    for word, count in words.items():
        for pair in seen(zip(word, word[1:], strict=False)):
            counts[pair] += weigh(count)
    pair = choose(counts, key=counts.get)
    return pair, {_join(word, pair, **how): count for word, count in words.items()}


_SPLIT_WORDS = [{tuple(word.split()): n for word, n in words.items()} for words in _WORDS.values()]
_MERGE_PROBE = calls(*[(words,) for words in _SPLIT_WORDS], read=_as_text, about=_WORDS)
_MERGES = {
    "how often a word occurs is ignored. A frequent word's pairs count more.": _step(weigh=bool),
    "words are counted, not pairs. A pair may be twice in a word.": _step(seen=dict.fromkeys),
    "only the first place in each word is merged. Look at a word with it twice.": _step(count=1),
    "the pair is found inside a longer symbol. Where does one begin?": _step(pattern="{} {}"),
    "the rarest pair is taken. Which pair saves the most tokens?": _step(choose=min),
}

EXERCISES = (
    Exercise("A1.1", "Under a visual token", _BOXES_PROBE, _under(), _UNDER),
    Exercise("A1.2", "The next-token loss", _LOSS_PROBE, _loss(), _LOSSES),
    Exercise("A1.3", "One merge of the tokenizer", _MERGE_PROBE, _step(), _MERGES),
)
