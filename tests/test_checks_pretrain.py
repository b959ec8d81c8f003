import math
from collections import defaultdict

import numpy as np
import torch

from emokd_utils import checks


def test_objects_under_a_token_by_painted_pixels_pass():
    def under(token, boxes):
        cell = np.zeros((112, 112), dtype=bool)
        top, left = 28 * (token // 4), 28 * (token % 4)
        cell[top : top + 28, left : left + 28] = True
        found = set()
        for place, (x, y, width, height) in enumerate(boxes):
            box = np.zeros_like(cell)
            box[y : y + height, x : x + width] = True
            both = box & cell
            if both.any(0).sum() > 8 and both.any(1).sum() > 8:
                found.add(place)
        return found

    assert checks.exercises("A1")["A1.1"](under).status == checks.PASSED


def test_the_next_token_loss_by_loops_and_by_torch_passes():
    def by_loop(logits, ids, first):
        costs = []
        for place in range(first, len(ids)):
            row = [math.exp(z) for z in logits[place - 1].tolist()]
            costs.append(-math.log(row[int(ids[place])] / sum(row)))
        return sum(costs) / len(costs)

    def by_labels(logits, ids, first):
        labels = ids.clone()
        labels[:first] = -100
        return torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100)

    for loss in (by_loop, by_labels):
        assert checks.exercises("A1")["A1.2"](loss).status == checks.PASSED


def test_a_merge_by_dictionaries_and_places_passes():
    def step(words):
        counts = defaultdict(int)
        for word, count in words.items():
            for k in range(len(word) - 1):
                counts[word[k], word[k + 1]] += count
        best = sorted(counts, key=lambda pair: -counts[pair])[0]
        new = {}
        for word, count in words.items():
            k, symbols = 0, []
            while k < len(word):
                if list(word[k : k + 2]) == list(best):
                    symbols.append(best[0] + best[1])
                    k += 2
                else:
                    symbols.append(word[k])
                    k += 1
            new[tuple(symbols)] = count
        return list(best), new

    assert checks.exercises("A1")["A1.3"](step).status == checks.PASSED
