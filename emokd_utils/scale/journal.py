"""The journal of a large model's answers, what became of them, and answers that others have got.

Each answer is appended to a journal (`instructions.journal_answers` tells its form) and on the disk
before another request is sent in its place. All else follows from the journal: what is left to ask,
what was spent, what passes. So a run that is killed goes on where it was.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random
from typing import IO

from filelock import FileLock, Timeout

from ..data import ImageDataset
from ..errors import InputError
from ..evidence import share
from ..files import checksum, load_lines, write_text
from ..instructions import JOURNAL_FORMAT, journal_answers
from .judging import judge


def journal_requests(journal: Path) -> list[dict]:
    """The requests of a journal; none where it is not begun. InputError where it is damaged."""
    return load_lines(journal, JOURNAL_FORMAT)[1:] if journal.exists() else []


def _write(journal: Path, requests: Sequence[dict]) -> None:
    lines = [{"format": JOURNAL_FORMAT}, *requests]
    write_text(journal, "".join(json.dumps(line) + "\n" for line in lines))


@contextmanager
def appending(journal: Path) -> Iterator[IO[bytes]]:
    """The file to append to, without a torn end. InputError where another process appends."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{journal}.lock", timeout=0):
            _write(journal, journal_requests(journal))
            with journal.open("ab", buffering=0) as file:
                yield file
    except Timeout:
        raise InputError(f"another process is writing to {journal}: wait for it") from None


def about_image(dataset: ImageDataset, image: str) -> dict[str, str]:
    """What a journal says of an image: its id, label and content."""
    digest = checksum(dataset.root / image)[:16]
    return {"image": image, "label": dataset.table.at[image, "label"], "sha256": digest}


def judged(answer: dict, dataset: ImageDataset) -> dict:
    """An answer with what is wrong with it, or its texts."""
    sections, wrong = judge(answer["text"], answer["label"], dataset.label_set, answer["finish"])
    return answer | {"wrong": wrong} | sections


def passes(answers: Sequence[dict]) -> bool:
    """Whether one of the answers to an image can be used."""
    return any(not answer["wrong"] for answer in answers)


def images_left(dataset: ImageDataset, answers: dict[str, list[dict]], attempts: int) -> list[str]:
    """Images to ask about: those with an answer first, then all classes mixed."""
    mixed = list(dataset.ids)
    Random(0).shuffle(mixed)
    known = {image: answers.get(image, []) for image in mixed}
    left = [one for one in mixed if len(known[one]) < attempts and not passes(known[one])]
    return sorted(left, key=lambda image: not known[image])


@dataclass(frozen=True)
class WriterReport:
    """What became of the images and of the answers.

    images: by what became of them. answers: those rejected, by what is wrong with them. counts:
    images, finished, answers, tokens in and out, usage estimated (not told by the server), lost
    (answers that may have been paid for and did not arrive). failures: images left out in this run,
    by the server's words, or items of an imported file that fit no image. stopped: why the run
    ended before its end, else "".
    """

    journal: Path
    images: dict[str, int]
    answers: dict[str, int]
    counts: dict[str, int]
    cost: float | None = None
    failures: dict[str, int] = field(default_factory=dict)
    stopped: str = ""

    def __str__(self) -> str:
        lines = []
        for kinds, of in ((self.images, "finished"), (self.answers, "answers")):
            if n := self.counts[of]:
                lines += [f"{what}: {share(k, n).percent}" for what, k in kinds.items()]
        lines += [f"{what}: {count:,}" for what, count in self.counts.items() if count]
        lines += [] if self.cost is None else [f"cost: {self.cost:,.4f}"]
        lines += [f"failed {k:,} x: {why}" for why, k in Counter(self.failures).most_common(5)]
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        return "\n".join([*lines, f"journal: {self.journal}"])


def report(journal: Path, dataset: ImageDataset, attempts: int, **about) -> WriterReport:
    """What a journal says of the images of ``dataset``, and what is told of the run beside it."""
    requests, rejected = journal_requests(journal), Counter()
    images, known = Counter(written=0, rewritten=0), journal_answers(requests, dataset)
    for answers in known.values():
        rejected.update(f"rejected: {one['wrong']}" for one in answers if one["wrong"])
        if passes(answers):
            images["rewritten" if answers[0]["wrong"] else "written"] += 1
        elif len(answers) >= attempts:
            images[f"set aside: {answers[-1]['wrong']}"] += 1
    counts = {
        "images": len(dataset),
        "finished": images.total(),
        "answers": sum(map(len, known.values())),
        "tokens in": sum(request["in"] for request in requests),
        "tokens out": sum(request["out"] for request in requests),
        "usage estimated": sum("text" in one and not one["measured"] for one in requests),
        "lost": sum("lost" in request for request in requests),
    }
    return WriterReport(journal, dict(images), dict(rejected.most_common()), counts, **about)


def import_written(
    path: Path | str, dataset: ImageDataset, folder: Path | str
) -> tuple[Path, WriterReport]:
    """Answers in the JSON that the paper's published code writes, as a journal in ``folder``.

    The form (github.com/sange1104/EmoVLM-KD, generate_instruction.py): a list of objects with
    ``gpt_response`` (the answer, with sections ``1. Key elements`` and ``2. Reasoning``),
    ``img_path``, ``img`` (its file name) and ``label``. An item belongs to the one image that has
    its file name and, where it tells one, its label. Returns the journal, for `read_instructions`,
    and the report. Raises InputError for another form.
    """
    path = Path(path)
    try:
        items = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON in UTF-8: {error}") from None
    objects = isinstance(items, list) and all(isinstance(item, dict) for item in items)
    if not objects or items and not any("gpt_response" in item for item in items):
        raise InputError(f"{path}: wanted is a list of objects with gpt_response and img_path")
    named, requests, failures = defaultdict(list), [], Counter()
    for image, label in zip(dataset.ids, dataset.labels, strict=True):
        for key in (label, None):  # None: of an item that does not tell its label
            named[PurePosixPath(image).name, key].append(image)
    for item in items:
        place = str(item.get("img_path") or item.get("img") or "").replace("\\", "/")
        label = item.get("label")
        label = None if label is None else dataset.label_set.canonical(str(label)) or "unknown"
        images = named[PurePosixPath(place).name, label]
        if len(images) == 1 and isinstance(item.get("gpt_response"), str):
            free = {"finish": "stop", "in": 0, "out": 0, "measured": True}
            answer = about_image(dataset, images[0]) | free | {"text": item["gpt_response"]}
            requests.append(judged(answer, dataset))
        else:
            failures[f"no image is {place or 'that of an object without img_path'}"] += 1
    journal = Path(folder) / f"imported-{checksum(path)[:16]}.jsonl"
    _write(journal, requests)
    return journal, report(journal, dataset, 1, failures=dict(failures))
