"""The journal of a large model's answers (lesson 4). All else follows from it, so a killed run goes
on; `instructions.journal_answers` tells its form."""

import errno
import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ..data import ImageDataset
from ..files import checksum, load_lines, write_text
from ..instructions import JOURNAL_FORMAT, journal_answers
from .judging import judge


class Journal:
    """answers: those to each image that count, in order. paid: images asked about. spent: tokens in
    and out. most: those of one answer. InputError where the file is damaged."""

    def __init__(self, path: Path, dataset: ImageDataset):
        self.path, self.dataset, self.requests = path, dataset, []
        self.paid, self.spent, self.most = set(), Counter(), Counter()
        for request in load_lines(path, JOURNAL_FORMAT)[1:] if path.exists() else ():
            self._count(request)
        self.answers = journal_answers(self.requests, dataset)

    def _count(self, request: dict) -> None:
        tokens = Counter({"in": request["in"], "out": request["out"]})
        self.requests.append(request)
        self.paid.add(request["image"])
        self.spent.update(tokens)
        if "text" in request:
            self.most |= tokens

    def append(self, request: dict) -> None:
        """Add a request, to the file too. A lost one is an answer until the file is read again."""
        line = json.dumps(request).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            if file.write(line) < len(line):  # the disk is full
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._count(request)
        self.answers[request["image"]].append(request)

    def save(self) -> None:
        """Write the file anew."""
        lines = [{"format": JOURNAL_FORMAT}, *self.requests]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def wanted(self, image: str) -> bool:
        """Whether an image is to be asked about: no answer passes, and there are not yet three."""
        answers = self.answers.get(image, ())
        return len(answers) < 3 and all(answer["wrong"] for answer in answers)

    def left(self) -> list[str]:
        """Images to ask about: those with an answer first, then all classes mixed."""
        mixed = list(self.dataset.ids)
        Random(0).shuffle(mixed)
        return sorted(filter(self.wanted, mixed), key=lambda image: image not in self.answers)

    def counts(self) -> Counter:
        """Images by what became of them; answers, those rejected or lost; tokens."""
        counts = Counter(images=len(self.dataset))
        for answers in self.answers.values():
            wrong = [answer["wrong"] for answer in answers]
            written = "rewritten" if wrong[0] else "written"
            counts[written if "" in wrong else f"set aside: {wrong[-1]}"] += 1
            counts.update(f"rejected: {word}" for word in wrong if word)
            counts["answers"] += len(answers)
        counts.update({f"tokens {name}": count for name, count in self.spent.items()})
        counts["lost"] = sum("text" not in request for request in self.requests)
        return counts


def entry(image: str, dataset: ImageDataset, reply: dict) -> dict:
    """What a journal holds of a reply: with its sections, or what is wrong with it."""
    label, digest = dataset.table.at[image, "label"], checksum(dataset.root / image)[:16]
    request = {"image": image, "label": label, "sha256": digest} | reply
    if "text" not in reply:
        return request | {"wrong": "lost"}
    sections, wrong = judge(reply["text"], label, dataset.label_set, reply["finish"])
    return request | {"wrong": wrong} | sections


@dataclass(frozen=True)
class WriterReport:
    """`Journal.counts`; why images were left out, with how many; why it ended."""

    journal: Path
    counts: Counter
    failures: Counter
    stopped: str = ""

    def __str__(self) -> str:
        lines = [f"{what}: {round(n, 4):,}" for what, n in self.counts.items() if n]
        lines += [f"failed {k:,} x: {why}" for why, k in self.failures.most_common(5)]
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        return "\n".join([*lines, f"journal: {self.journal}"])
