from collections import defaultdict

import numpy as np

from emokd_utils import checks


def test_objects_under_a_token_by_painted_pixels_pass():
    def under(token, boxes):
        row, column = divmod(token, 4)
        found = set()
        for place, (x, y, width, height) in enumerate(boxes):
            box = np.zeros((112, 112), dtype=bool)
            box[y : y + height, x : x + width] = True
            inside = box[28 * row : 28 * row + 28, 28 * column : 28 * column + 28]
            if inside.any(0).sum() > 8 and inside.any(1).sum() > 8:
                found.add(place)
        return found

    assert checks.exercises("A1")["A1.1"](under).status == checks.PASSED


def test_a_merge_by_dictionaries_and_places_passes():
    def step(words):
        counts = defaultdict(int)
        for word, count in words.items():
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += count
        best = sorted(counts, key=lambda pair: -counts[pair])[0]
        merged = {}
        for word, count in words.items():
            k, symbols = 0, []
            while k < len(word):
                width = 2 if tuple(word[k : k + 2]) == best else 1
                symbols.append("".join(word[k : k + width]))
                k += width
            merged[tuple(symbols)] = count
        return list(best), merged

    assert checks.exercises("A1")["A1.3"](step).status == checks.PASSED
