import random

import pandas as pd

from emokd_utils import checks
from emokd_utils.data import stratified_split


def test_leaks_by_joining_tables_pass():
    def leaked(rows):
        table = pd.DataFrame(rows, columns=["id", "split", "pixels"])
        test, before = table[table["split"] == "test"], table[table["split"] != "test"]
        return set(before.merge(test, on="pixels")["id_x"])

    assert checks.exercises("10")["10.1"](leaked).status == checks.PASSED


def test_the_librarys_own_split_passes():
    assert checks.exercises("10")["10.2"](stratified_split).status == checks.PASSED


def test_a_split_by_shuffling_each_class_passes():
    def split(ids, labels, fraction, seed):
        by_class = {}
        for image, label in zip(ids, labels, strict=True):
            by_class.setdefault(label, []).append(image)
        drawn = set()
        for label in sorted(by_class):
            own = by_class[label]
            random.Random(f"{seed}/{label}").shuffle(own)
            if len(own) > 1:
                drawn.update(own[: min(max(1, int(fraction * len(own) + 0.5)), len(own) - 1)])
        return drawn

    assert checks.exercises("10")["10.2"](split).status == checks.PASSED


def test_gigabytes_counted_in_blocks_of_bytes_pass():
    def gigabytes(quantised, kept):
        blocks = quantised / 64
        return (blocks * (32 + 4) + 2 * kept) / 1000**3

    assert checks.exercises("10")["10.3"](gigabytes).status == checks.PASSED
