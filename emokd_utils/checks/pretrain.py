"""Checks of lesson A1: what lies under a visual token, the next-token loss, a merge of the
tokenizer."""

from collections import Counter

import torch

from ..checks import Exercise, Mistake, attempted, calls

# ------------------------------------------------------------------------------ under a visual token

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
    if not callable(function):
        raise TypeError(f"a function is wanted here, this is {type(function).__name__}")
    found = [attempted(function(token, _BOXES)) for token in range(16)]
    return [sorted(int(place) for place in places) for places in found]


def _overlap(box, left, top):
    x, y, width, height = box
    wide = min(x + width, left + 28) - max(x, left)
    high = min(y + height, top + 28) - max(y, top)
    return wide, high


def _under(rule=lambda wide, high: wide > 8 and high > 8, swap=False, first=0, corners=False):
    """The places of boxes with one thing wrong."""

    def under(token, boxes):
        row, column = divmod(token - first, 4)
        left, top = (28 * row, 28 * column) if swap else (28 * column, 28 * row)
        if corners:
            boxes = [(x, y, width - x, height - y) for x, y, width, height in boxes]
        return [k for k, box in enumerate(boxes) if rule(*_overlap(box, left, top))]

    return under


def _by_centre(token, boxes):
    places = []
    for k, (x, y, width, height) in enumerate(boxes):
        if (int(y + height / 2) // 28, int(x + width / 2) // 28) == divmod(token, 4):
            places.append(k)
    return places


# --------------------------------------------------------------------------------- the next-token loss


def _loss_cases() -> list[tuple]:
    draw = torch.Generator().manual_seed(11)
    cases = []
    for length, first in ((7, 4), (9, 6), (6, 1)):
        logits = 2 * torch.randn(length, 5, generator=draw)
        cases.append((logits, torch.randint(5, (length,), generator=draw), first))
    return cases


def _loss(begin=0, shift=-1, reduce=lambda values, length: values.mean(), twice=False, log=True):
    """A next-token loss with one thing wrong."""

    def loss(logits, ids, first):
        places = torch.arange(1 if begin < 0 else first + begin, len(ids))
        places = places[places + shift < len(ids)]
        if twice:
            logits = logits.softmax(1)
        told = logits.log_softmax(1) if log else logits
        return reduce(-told[places + shift, ids[places]], len(ids))

    return loss


# ------------------------------------------------------------------------------------ a merge of BPE

_WORDS = (
    # "l o" is in most words; counted by how often words occur, "e r" is the more frequent pair.
    {
        ("l", "o", "w"): 2,
        ("l", "o", "t"): 1,
        ("l", "o", "g"): 1,
        ("n", "e", "w", "e", "r"): 5,
        ("w", "i", "d", "e", "r"): 3,
    },
    # "b a" occurs twice in one word; "c d" in more words, but less often.
    {("b", "a", "b", "a"): 4, ("c", "d"): 3, ("c", "d", "e"): 2, ("f", "g"): 1},
    # An odd run: the pair must not overlap with itself.
    {("a", "a", "a"): 4, ("b", "a", "a", "a", "a"): 2, ("b", "c"): 3},
    # Symbols of several letters: "ab" + "c" is neither "a" + "bc" nor the end of "zab" + "c".
    {("ab", "c", "d"): 5, ("a", "bc", "d"): 2, ("x", "ab", "c"): 2, ("x", "y"): 3, ("zab", "c"): 1},
)


def _merge_probe(function) -> list:
    """The pair and the new words of each case, as text: no matter whether lists or tuples."""
    if not callable(function):
        raise TypeError(f"a function is wanted here, this is {type(function).__name__}")
    found = []
    for words in _WORDS:
        pair, new = attempted(function(dict(words)))
        found += [tuple(pair), {" ".join(word): count for word, count in dict(new).items()}]
    return found


def _pairs(words, weight=True, once=False) -> Counter:
    found = Counter()
    for word, count in words.items():
        inside = list(zip(word, word[1:], strict=False))
        for pair in set(inside) if once else inside:
            found[pair] += count if weight else 1
    return found


def _join(word, pair) -> tuple:
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == tuple(pair):
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def _join_first(word, pair) -> tuple:
    for k in range(len(word) - 1):
        if word[k : k + 2] == pair:
            return (*word[:k], "".join(pair), *word[k + 2 :])
    return word


def _join_overlapping(word, pair) -> tuple:
    out, used = [], False
    for k, symbol in enumerate(word):
        if word[k : k + 2] == pair:
            out.append("".join(pair))
            used = True
        elif not used:
            out.append(symbol)
        else:
            used = False
    return tuple(out)


def _join_text(word, pair) -> tuple:
    marked = "".join(word).replace("".join(pair), "|" + "".join(pair) + "|")
    out, rest = [], list(word)
    for part in marked.split("|"):
        if part == "".join(pair):
            out.append(part)
        else:
            out += [symbol for symbol in rest if symbol in part] if part else []
    return tuple(out)


def _join_spaced(word, pair) -> tuple:
    return tuple(" ".join(word).replace(" ".join(pair), "".join(pair)).split(" "))


def _step(join=_join, **counting):
    def step(words):
        counts = _pairs(words, **counting)
        pair = max(counts, key=counts.get)
        return pair, {join(word, pair): count for word, count in words.items()}

    return step


def _rarest(words):
    counts = _pairs(words)
    pair = min(counts, key=counts.get)
    return pair, {_join(word, pair): count for word, count in words.items()}


def _only_found(words):
    pair, new = _step()(words)
    return pair, {word: count for word, count in new.items() if "".join(pair) in word}


EXERCISES = (
    Exercise(
        "A1.1",
        "Under a visual token",
        _under_probe,
        _under(),
        (
            Mistake(
                "rows and columns are exchanged",
                "Tokens go row by row, as one reads. Where on the image is token 1: to the right of "
                "token 0, or below it?",
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
                "A box that only touches the edge of a cell is not to be seen there. What is asked of "
                "the overlap?",
                _under(lambda wide, high: wide > 0 and high > 0),
            ),
            Mistake(
                "exactly 8 pixels are counted as well",
                "More than 8 is not the same as 8 or more.",
                _under(lambda wide, high: wide >= 8 and high >= 8),
            ),
            Mistake(
                "the area is compared, not the sides",
                "A strip of 28 pixels by 3 covers 84, and yet nothing can be made out in it. Both "
                "sides have to be wide enough.",
                _under(lambda wide, high: wide > 0 and high > 0 and wide * high > 64),
            ),
            Mistake(
                "one side is enough",
                "Two conditions: do both have to hold, or one?",
                _under(lambda wide, high: min(wide, high) > 0 and max(wide, high) > 8),
            ),
            Mistake(
                "only the middle of a box counts",
                "A large box lies under several tokens.",
                _by_centre,
            ),
        ),
    ),
    Exercise(
        "A1.2",
        "The next-token loss",
        calls(*_loss_cases()),
        _loss(),
        (
            Mistake(
                "logits and tokens are not shifted",
                "The logits at a place are about the token after it. Which logits foretell the "
                "answer's first token?",
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
                _loss(reduce=lambda values, length: values.sum()),
            ),
            Mistake(
                "the mean is taken over the whole text",
                "Over how many tokens do you sum, and by how many do you divide?",
                _loss(reduce=lambda values, length: values.sum() / length),
            ),
            Mistake(
                "softmax is taken twice",
                "Something that already is a distribution goes through a softmax once more. Print one "
                "row before each.",
                _loss(twice=True),
            ),
            Mistake(
                "logits are taken for logarithms of probabilities",
                "Do the exponentials of a row sum to 1?",
                _loss(log=False),
            ),
        ),
    ),
    Exercise(
        "A1.3",
        "One merge of the tokenizer",
        _merge_probe,
        _step(),
        (
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
                _step(join=_join_first),
            ),
            Mistake(
                "merges overlap",
                "In a a a a symbol is used twice. After a merge, where does the search go on?",
                _step(join=_join_overlapping),
            ),
            Mistake(
                "letters are merged, not symbols",
                "ab + c and a + bc are written alike, but only one of them is the pair. Compare "
                "symbols, not their text.",
                _step(join=_join_text),
            ),
            Mistake(
                "the pair is found inside a longer symbol",
                "zab + c ends like ab + c, but its first symbol is another one. How does your search "
                "know where a symbol begins?",
                _step(join=_join_spaced),
            ),
            Mistake(
                "words without the pair are lost",
                "They stay as they are.",
                _only_found,
            ),
            Mistake(
                "the rarest pair is taken",
                "Which pair saves the most tokens?",
                _rarest,
            ),
        ),
    ),
)
