"""Checks of lesson A1: what lies under a visual token, the next-token loss, a merge of the
tokenizer."""

import re
from collections import Counter

import torch

from ..checks import Exercise, Mistake, calls

_BOXES = (
    (0, 0, 40, 40),  # over the first cell, and 12 pixels of the next ones
    (60, 10, 30, 70),  # tall: over two columns and three rows
    (20, 84, 16, 28),  # exactly 8 pixels of two cells: under neither
    (19, 57, 17, 12),  # 9 pixels of one cell, 8 of the other
    (83, 80, 26, 13),  # low and wide
    (28, 53, 56, 12),  # a strip of 3 pixels in one row, of 9 in the next
)


def _under_probe(function) -> list:
    """The places of the boxes under each of the 16 tokens, in whatever container they come."""
    answers = calls(*((token, _BOXES) for token in range(16)))(function)
    return [sorted(int(place) for place in places) for places in answers]


def _under(rule=lambda wide, high: wide > 8 and high > 8, swap=False, first=0, corners=False):
    """The places of boxes with one thing wrong."""

    def under(token, boxes):
        row, column = divmod(token - first, 4)
        left, top = (28 * row, 28 * column) if swap else (28 * column, 28 * row)
        places = []
        for place, (x, y, width, height) in enumerate(boxes):
            right, bottom = (width, height) if corners else (x + width, y + height)
            wide = min(right, left + 28) - max(x, left)
            high = min(bottom, top + 28) - max(y, top)
            if rule(wide, high):
                places.append(place)
        return places

    return under


def _by_centre(token, boxes):
    centres = [((y + height / 2) // 28, (x + width / 2) // 28) for x, y, width, height in boxes]
    return [place for place, centre in enumerate(centres) if centre == divmod(token, 4)]


_UNDER_MISTAKES = (
    Mistake(
        "rows and columns are exchanged",
        "Tokens go row by row, as one reads. Is token 1 to the right of token 0, or below it?",
        _under(swap=True),
    ),
    Mistake(
        "tokens are counted from 1",
        "Token 0 is the first. Which cell does your function take for it?",
        _under(first=1),
    ),
    Mistake(
        "boxes are read as two corners",
        "The third and fourth number of a box are its width and height.",
        _under(corners=True),
    ),
    Mistake(
        "any overlap counts",
        "A box that only touches a cell is not to be seen there. What is asked of the overlap?",
        _under(lambda wide, high: wide > 0 and high > 0),
    ),
    Mistake(
        "exactly 8 pixels are counted as well",
        "More than 8 is not the same as 8 or more.",
        _under(lambda wide, high: wide >= 8 and high >= 8),
    ),
    Mistake(
        "the area is compared, not the sides",
        "In a strip of 28 pixels by 3 nothing can be made out. Both sides must be wide enough.",
        _under(lambda wide, high: wide > 0 and high > 0 and wide * high > 64),
    ),
    Mistake(
        "one side is enough",
        "Two conditions: do both have to hold, or one?",
        _under(lambda wide, high: min(wide, high) > 0 and max(wide, high) > 8),
    ),
    Mistake(
        "only the middle of a box counts", "A large box lies under several tokens.", _by_centre
    ),
)


def _loss_case(length: int, first: int, draw: torch.Generator) -> tuple:
    logits = 2 * torch.randn(length, 5, generator=draw)
    return logits, torch.randint(5, (length,), generator=draw), first


_DRAW = torch.Generator().manual_seed(11)
_LOSS_CASES = [_loss_case(*sizes, _DRAW) for sizes in ((7, 4), (9, 6), (6, 1))]


def _loss(begin=0, shift=-1, reduce=lambda costs, length: costs.mean(), twice=False, log=True):
    """A next-token loss with one thing wrong."""

    def loss(logits, ids, first):
        places = torch.arange(1 if begin < 0 else first + begin, len(ids))
        places = places[places + shift < len(ids)]
        logits = logits.softmax(1) if twice else logits
        scores = logits.log_softmax(1) if log else logits
        return reduce(-scores[places + shift, ids[places]], len(ids))

    return loss


_LOSS_MISTAKES = (
    Mistake(
        "logits and tokens are not shifted",
        "Logits are about the token after their place. Which foretell the answer's first token?",
        _loss(shift=0),
    ),
    Mistake(
        "shifted the wrong way",
        "Your logits have already seen the token that they are to foretell.",
        _loss(shift=1),
    ),
    Mistake(
        "the question is learnt as well",
        "Only the answer's tokens count, from `first` on.",
        _loss(begin=-1),
    ),
    Mistake(
        "the answer's first token is missing",
        "It is foretold by the last token of the question, and it counts.",
        _loss(begin=1),
    ),
    Mistake(
        "a sum, not a mean",
        "An answer of twice the length should not cost twice as much.",
        _loss(reduce=lambda costs, length: costs.sum()),
    ),
    Mistake(
        "the mean is taken over the whole text",
        "Over how many tokens do you sum, and by how many do you divide?",
        _loss(reduce=lambda costs, length: costs.sum() / length),
    ),
    Mistake(
        "softmax is taken twice",
        "A distribution goes through a softmax once more. Print one row before each.",
        _loss(twice=True),
    ),
    Mistake(
        "logits are taken for logarithms of probabilities",
        "Do the exponentials of a row sum to 1?",
        _loss(log=False),
    ),
)

_WORDS = (
    # "l o" is in most words; counted by how often words occur, "e r" is the more frequent pair.
    {"l o w": 2, "l o t": 1, "l o g": 1, "n e w e r": 5, "w i d e r": 3},
    # "b a" occurs twice in one word; "c d" in more words, but less often.
    {"b a b a": 4, "c d": 3, "c d e": 2, "f g": 1},
    # An odd run: the pair must not overlap with itself.
    {"a a a": 4, "b a a a a": 2, "b c": 3},
    # Symbols of several letters: "ab" + "c" is neither "a" + "bc" nor the end of "zab" + "c".
    {"ab c d": 5, "a bc d": 2, "x ab c": 2, "x y": 3, "zab c": 1},
)


def _merge_probe(function) -> list:
    """The pair and the new words of each case, as text: no matter whether lists or tuples."""
    cases = [{tuple(word.split()): count for word, count in words.items()} for words in _WORDS]
    measured = []
    for pair, words in calls(*((case,) for case in cases))(function):
        measured += [tuple(pair), {" ".join(word): count for word, count in dict(words).items()}]
    return measured


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


def _step(join=_join, choose=max, weight=True, once=False, lost=False, **how):
    """One merge with one thing wrong."""

    def step(words):
        counts = Counter()
        for word, count in words.items():
            pairs = list(zip(word, word[1:], strict=False))
            for pair in dict.fromkeys(pairs) if once else pairs:
                counts[pair] += count if weight else 1
        pair = choose(counts, key=counts.get)
        merged = {join(word, pair, **how): count for word, count in words.items()}
        return pair, {w: n for w, n in merged.items() if "".join(pair) in w or not lost}

    return step


_MERGE_MISTAKES = (
    Mistake(
        "how often a word occurs is ignored",
        "A pair in a word that occurs five times counts five times.",
        _step(weight=False),
    ),
    Mistake(
        "words are counted, not pairs",
        "A pair may occur twice in one word. How often does it count?",
        _step(once=True),
    ),
    Mistake(
        "only the first place in each word is merged",
        "Look at a word that holds the pair twice.",
        _step(count=1),
    ),
    Mistake(
        "merges overlap",
        "In a a a a symbol is used twice. After a merge, where does the search go on?",
        _step(_join_overlapping),
    ),
    Mistake(
        "letters are merged, not symbols",
        "ab + c and a + bc are written alike, but only one is the pair. Compare symbols.",
        _step(_join_text),
    ),
    Mistake(
        "the pair is found inside a longer symbol",
        "zab + c only ends like ab + c. How does your search know where a symbol begins?",
        _step(pattern="{} {}"),
    ),
    Mistake("words without the pair are lost", "They stay as they are.", _step(lost=True)),
    Mistake("the rarest pair is taken", "Which pair saves the most tokens?", _step(choose=min)),
)

EXERCISES = (
    Exercise("A1.1", "Under a visual token", _under_probe, _under(), _UNDER_MISTAKES),
    Exercise("A1.2", "The next-token loss", calls(*_LOSS_CASES), _loss(), _LOSS_MISTAKES),
    Exercise("A1.3", "One merge of the tokenizer", _merge_probe, _step(), _MERGE_MISTAKES),
)
