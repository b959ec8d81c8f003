"""The journal of a large model's answers, what became of them, and answers that others have got.

Each answer is appended to a journal (`instructions.journal_answers` tells its form) before another
request is sent in its place. All else follows from the journal: what is left to ask, what was
spent, what passes. So a run that is killed goes on where it was.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random

from ..data import ImageDataset
from ..errors import InputError
from ..files import checksum, load_lines, write_text
from ..instructions import JOURNAL_FORMAT, journal_answers
from .judging import judge

OLD_FORMAT = "emokd-written-1"  # without what is wrong with an answer, and its sections


class Journal:
    """Requests about the images of ``dataset``, in a file.

    answers: those to each image that count, in order. paid: images asked about. spent: tokens in
    and out. most: those of one answer.
    """

    def __init__(self, path: Path, dataset: ImageDataset, requests: Iterable[dict] = ()):
        self.path, self.dataset, self.requests = path, dataset, []
        self.paid, self.spent, self.most = set(), Counter(), Counter()
        for request in requests:
            self.add(request)
        self.answers = journal_answers(self.requests, dataset)

    def add(self, request: dict) -> None:
        """Count a request."""
        tokens = Counter({name: request[name] for name in ("in", "out")})
        self.requests.append(request)
        self.paid.add(request["image"])
        self.spent.update(tokens)
        if "text" in request:
            self.most |= tokens

    def append(self, request: dict) -> None:
        """Add a request to the file too."""
        with self.path.open("a") as file:
            file.write(json.dumps(request) + "\n")
        self.add(request)

    def save(self) -> None:
        """Write the file anew, without a torn end."""
        lines = [{"format": JOURNAL_FORMAT}, *self.requests]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))

    def passes(self, image: str) -> bool:
        """Whether one of the answers to an image can be used."""
        return any(not answer["wrong"] for answer in self.answers.get(image, ()))

    def left(self, attempts: int) -> list[str]:
        """Images to ask about: those with an answer first, then all classes mixed."""
        mixed = list(self.dataset.ids)
        Random(0).shuffle(mixed)
        known = {image: len(self.answers.get(image, ())) for image in mixed}
        left = [one for one in mixed if known[one] < attempts and not self.passes(one)]
        return sorted(left, key=lambda image: not known[image])

    def counts(self, attempts: int) -> dict[str, int]:
        """Images by what became of them; answers, and the rejected by what is wrong with them;
        tokens; answers without usage; those lost that may have been paid for."""
        images, wrong = Counter(written=0, rewritten=0), Counter()
        for image, answers in self.answers.items():
            wrong.update(f"rejected: {answer['wrong']}" for answer in answers if answer["wrong"])
            if self.passes(image):
                images["rewritten" if answers[0]["wrong"] else "written"] += 1
            elif len(answers) >= attempts:
                images[f"set aside: {answers[-1]['wrong']}"] += 1
        counts = {"images": len(self.dataset), **images}
        counts |= {"answers": sum(map(len, self.answers.values())), **wrong}
        counts |= {f"tokens {name}": self.spent[name] for name in ("in", "out")}
        counts["usage estimated"] = sum("text" in r and not r["measured"] for r in self.requests)
        return counts | {"lost": sum(r.get("lost", 0) for r in self.requests)}


def open_journal(path: Path, dataset: ImageDataset, old: Path) -> Journal:
    """The journal in a file, or what is in one of the old format, or an empty one. InputError where
    it is damaged."""
    if path.exists() or not old.exists():
        return Journal(path, dataset, load_lines(path, JOURNAL_FORMAT)[1:] if path.exists() else ())
    requests = load_lines(old, OLD_FORMAT)[1:]
    return Journal(path, dataset, [judged(request, dataset) for request in requests])


def about_image(image: str, dataset: ImageDataset) -> dict[str, str]:
    """What a journal says of an image: its id, label and content."""
    digest = checksum(dataset.root / image)[:16]
    return {"image": image, "label": dataset.table.at[image, "label"], "sha256": digest}


def judged(request: dict, dataset: ImageDataset) -> dict:
    """A request with what is wrong with its answer, or the sections of it."""
    if "text" not in request:
        return request | {"wrong": "lost"}
    text, label, finish = (request[name] for name in ("text", "label", "finish"))
    sections, wrong = judge(text, label, dataset.label_set, finish)
    return request | {"wrong": wrong} | sections


@dataclass(frozen=True)
class WriterReport:
    """What became of the images and of the answers.

    counts: as in `Journal.counts`. failures: images left out in this run, by the server's words, or
    items of an imported file that fit no image. stopped: why the run ended before its end, else "".
    """

    journal: Path
    counts: dict[str, int]
    cost: float | None = None
    failures: dict[str, int] = field(default_factory=dict)
    stopped: str = ""

    def __str__(self) -> str:
        lines = [f"{what}: {count:,}" for what, count in self.counts.items() if count]
        lines += [] if self.cost is None else [f"cost: {self.cost:,.4f}"]
        lines += [f"failed {k:,} x: {why}" for why, k in Counter(self.failures).most_common(5)]
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        return "\n".join([*lines, f"journal: {self.journal}"])


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
        if not any("gpt_response" in item for item in items):
            raise ValueError("no item has gpt_response")
    except (OSError, ValueError, TypeError) as error:
        wanted = "a JSON list of objects with gpt_response and img_path"
        raise InputError(f"{path}: wanted is {wanted} ({error})") from None
    named, requests, failures = defaultdict(list), [], Counter()
    for image, label in zip(dataset.ids, dataset.labels, strict=True):
        for key in (label, None):  # None: of an item that does not tell its label
            named[PurePosixPath(image).name, key].append(image)
    free = {"finish": "stop", "in": 0, "out": 0, "measured": True}
    for item in items:
        place = str(item.get("img_path") or item.get("img") or "").replace("\\", "/")
        label = item.get("label")
        label = None if label is None else dataset.label_set.canonical(str(label)) or "unknown"
        images = named[PurePosixPath(place).name, label]
        if len(images) == 1 and isinstance(item.get("gpt_response"), str):
            answer = about_image(images[0], dataset) | free | {"text": item["gpt_response"]}
            requests.append(judged(answer, dataset))
        else:
            failures[f"no image is {place or 'that of an object without img_path'}"] += 1
    name = f"imported-{checksum(path)[:16]}.jsonl"
    journal = Journal(Path(folder) / name, dataset, requests)
    journal.save()
    return journal.path, WriterReport(journal.path, journal.counts(1), failures=dict(failures))
