"""Instructions written by a large model that sees the image and is told its label (lesson 4).

``python -m emokd_utils write-instructions`` asks any server that speaks OpenAI's chat completions.
OPENAI_BASE_URL says where it is (default: OpenAI) and OPENAI_API_KEY is the key, read when a run
begins and kept nowhere else. Sent of an image are its pixels, shrunk, as a JPEG without metadata.

Each answer is appended to a journal (JSON lines) and on the disk before anything else is done with
it. All the rest follows from the journal: what is left to ask, what was spent, what passes the
checks, the report. So a run that is killed goes on where it was; what a kill can lose is the
answers under way. The package openai tries again, with backoff, what ends in 429, 5xx, a timeout
or a broken connection; where an answer may have been paid for and was lost on the way, its cost
at most is written to the journal too.
"""

import base64
import hashlib
import io
import json
import math
import os
import re
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from random import Random

import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..data import ImageDataset
from ..emotions import LabelSet
from ..errors import InputError
from ..evidence import share
from ..files import fingerprint
from ..instructions import (
    CONVERSATION_PROMPT,
    REASONING_PROMPT,
    Instruction,
    leaks,
    write_instructions,
)
from ..settings import KINDS

FORMAT = "emokd-written-1"
PROMPT = (
    "People who were shown this image said that it evokes {label}. Explain it to somebody who is "
    "learning to see why. Answer in English, with exactly these two sections, in full sentences:\n"
    "\nKey elements: what the image shows and how it looks (things, people, setting, colours, "
    "light), in two to four sentences.\n"
    "\nReasoning: how these elements lead to what the image evokes, in two to four sentences.\n"
    "\nKeep to what can be seen. Use neither the word {label} nor any form of it, in either section."
)
AGAIN = "\n\nAn earlier answer could not be used: {hint}. Write a new one."
HINTS = {
    "refused": "it declined, though only the look of a picture is asked for",
    "section missing": "it had not both sections under their headings",
    "cut off": "it was too long",
    "too short": "a section was too short",
    "too long": "a section was too long",
    "not English": "it was not in English sentences",
    "names the emotion": "it used the word that must not be used, or a form of it",
}
"""What is wrong with an answer -> how the model is told so when it is asked again."""

MIN_WORDS, MAX_WORDS = 8, 150  # of a section
GIVE_UP = 5  # requests in a row that failed, each after all its retries
CHARACTERS_PER_TOKEN = 3  # English has about four, so this counts too many rather than too few
MIN_SECRET = 8  # characters; a shorter key ("none", "EMPTY") is no secret and could be any word

_HEADING = r"(?im)^[\s#>*_\d.()-]*{}\b[\s*_]*:?[\s*_]*"
_KEY_ELEMENTS = re.compile(_HEADING.format(r"key\s+elements"))
_REASONING = re.compile(_HEADING.format(r"reasoning(?:\s+process)?"))
_REFUSAL = re.compile(
    r"(?i)\W*(?:i['’]?m|i am) (?:very )?(?:sorry|unable|not able)|\W*(?:sorry|as an ai)\b"
    r"|\W*i (?:can(?:no|['’])t|won['’]t)\b"
)
_FUNCTION_WORDS = frozenset(  # of English, and of no neighbouring language
    "the and to with are it that this which by their its from there these they into while but "
    "not could may".split()
)


@dataclass(frozen=True)
class WriterSettings:
    """How to ask, and for how much.

    model: its name at the server. concurrency: requests under way at once. requests_per_minute:
    evenly spaced, retries included. max_retries: of one request, by the package openai. timeout: of
    one try, in seconds. answer_tokens: limit of an answer. temperature: None leaves the server's
    own. image_side: longer side in pixels that an image is shrunk to. image_tokens: what an image
    may cost in tokens; None: 85 + 170 for each tile of 512 px, as GPT-4o counts. attempts: answers
    to one image before it is set aside. max_images, max_tokens, max_cost: budgets of a journal,
    what it already holds included; None: none. price_in, price_out: of a million tokens, in the
    currency of max_cost.

    Raises InputError for values out of range, and max_cost without prices.
    """

    model: str
    concurrency: int = 4
    requests_per_minute: float = 60.0
    max_retries: int = 6
    timeout: float = 120.0
    answer_tokens: int = 500
    temperature: float | None = None
    image_side: int = 512
    image_tokens: int | None = None
    attempts: int = 3
    max_images: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        may_be_zero = {"max_retries", "temperature", "price_in", "price_out"}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "model" or value is None:
                continue
            if not (math.isfinite(value) and (value > 0 or one.name in may_be_zero and value == 0)):
                raise InputError(f"{one.name} is {value}: give a number above 0")
        if not self.model.strip():
            raise InputError("give the model a name, as its server knows it")
        if self.max_cost is not None and None in (self.price_in, self.price_out):
            raise InputError(
                "a budget in money needs prices: give price_in and price_out, each for a million "
                "tokens (--price-in, --price-out)"
            )

    @property
    def key(self) -> str:
        """16 hexadecimal digits of what the answers depend on: prompts, model, limit, image."""
        about = (self.model, self.answer_tokens, self.temperature, self.image_side)
        return fingerprint([FORMAT, PROMPT, AGAIN, HINTS, *about])

    @property
    def input_tokens(self) -> int:
        """Tokens that a request may cost, by the formula, before any is measured."""
        tiles = math.ceil(self.image_side / 512) ** 2
        image = 85 + 170 * tiles if self.image_tokens is None else self.image_tokens
        text = len(PROMPT) + len(AGAIN) + max(map(len, HINTS.values()))
        return image + math.ceil(text / CHARACTERS_PER_TOKEN)

    def cost(self, tokens_in: float, tokens_out: float) -> float | None:
        """Price of so many tokens; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


# -------------------------------------------------------------------------------------------- checks


def judge(
    text: str, label: str, label_set: LabelSet, finish: str = "stop"
) -> tuple[dict[str, str], str]:
    """The texts of an answer by kind (conversation, reasoning) and "", or {} and what is wrong.

    finish: the server's finish reason. What is wrong is a key of HINTS. The sections are headed
    ``Key elements`` and ``Reasoning``, with or without numbers and Markdown.
    """
    if finish == "content_filter" or _REFUSAL.match(text):
        return {}, "refused"
    if finish == "length":
        return {}, "cut off"
    text = re.sub(r"(?s)<think>.*?</think>", "", text)
    head = _KEY_ELEMENTS.search(text)
    middle = _REASONING.search(text, head.end()) if head else None
    if not middle:
        return {}, "section missing"
    sections = {
        "conversation": _tidy(text[head.end() : middle.start()]),
        "reasoning": _tidy(text[middle.end() :]),
    }
    wrong = [_wrong(section, label, label_set) for section in sections.values()]
    return ({}, wrong[0] or wrong[1]) if any(wrong) else (sections, "")


def _wrong(section: str, label: str, label_set: LabelSet) -> str:
    words = re.findall(r"[^\W\d_]+", section.lower())
    if _REFUSAL.match(section):
        return "refused"
    if len(words) < MIN_WORDS:
        return "too short" if words else "section missing"
    if len(words) > MAX_WORDS:
        return "too long"
    letters = "".join(words)
    ascii_letters = sum(letter.isascii() for letter in letters) / len(letters)
    function_words = sum(word in _FUNCTION_WORDS for word in words) / len(words)
    if ascii_letters < 0.9 or function_words < 0.08:
        return "not English"
    return "names the emotion" if leaks(section, label, label_set) else ""


def _tidy(section: str) -> str:
    """Without Markdown's emphasis and bullets, on one line."""
    lines = (re.sub(r"^\s*[-*•]\s+", "", line) for line in section.splitlines())
    return " ".join(" ".join(lines).replace("**", "").split())


# ------------------------------------------------------------------------------------------- journal


def journal_path(folder: Path | str, settings: WriterSettings) -> Path:
    """The journal of these settings in ``folder``: ``<model>-<key>.jsonl``."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", settings.model).strip("_.")[-60:]
    return Path(folder) / f"{name}-{settings.key}.jsonl"


class _Journal:
    """The answers in a file. write: also append to it, as the only process that does.

    images: those that something was paid for. spent: tokens in and out of all entries. most: of one
    answer. A torn last line is dropped.
    """

    def __init__(self, path: Path, write: bool = False, **about):
        self.path, self._lock = path, threading.Lock()
        self.entries: list[dict] = []
        self.images: set[str] = set()
        self.spent, self.most, self._file = Counter(), Counter(), None
        if write:
            self._open()
        data = path.read_bytes() if path.exists() else b""
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if number > 1:
                    self._add(entry)
                elif entry["format"] != FORMAT:
                    raise ValueError
            except (ValueError, LookupError, TypeError):
                self.close()
                raise InputError(
                    f"{path}: line {number} is damaged, or this is no journal of answers: "
                    "remove the line, or give another file"
                ) from None
        if write:
            self._file.truncate(sum(len(line) + 1 for line in lines))
            if not lines:
                self._write([{"format": FORMAT} | about])

    def _open(self) -> None:
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._only = FileLock(f"{self.path}.lock")
        try:
            self._only.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another process is writing to {self.path}: wait for it") from None
        self._file = self.path.open("ab", buffering=0)

    def append(self, *entries: dict) -> None:
        """Add entries; when this returns they are on the disk."""
        with self._lock:
            self._write(entries)
            for entry in entries:
                self._add(entry)

    def _add(self, entry: dict) -> None:
        tokens = {"in": entry["in"], "out": entry["out"]}
        self.images.add(entry["image"])
        self.spent.update(tokens)
        if "text" in entry:
            self.most |= Counter(tokens)
        self.entries.append(entry)

    def _write(self, entries: Sequence[dict]) -> None:
        lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
        at = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(lines) != len(lines):
                raise OSError(f"{self.path}: an answer was not written; is the disk full?")
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(at)
            raise

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._only.release()

    def verdicts(self, dataset: ImageDataset) -> dict[str, list[tuple[dict[str, str], str]]]:
        """What `judge` says of each answer to each image of ``dataset``, in order.

        An answer to an image that has since got another label or other bytes does not count.
        """
        labels, digests, found = _labels(dataset), {}, defaultdict(list)
        for entry in self.entries:
            image, label = entry["image"], entry["label"]
            if "text" in entry and labels.get(image) == label:
                digests[image] = digests.get(image) or _digest(dataset, image)
                if digests[image] == entry["sha256"]:
                    verdict = judge(entry["text"], label, dataset.label_set, entry["finish"])
                    found[image].append(verdict)
        return found


def _labels(dataset: ImageDataset) -> dict[str, str]:
    return dict(zip(dataset.ids, dataset.labels, strict=True))


def _digest(dataset: ImageDataset, image: str) -> str:
    with (dataset.root / image).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _passes(verdicts: Sequence[tuple[dict, str]]) -> bool:
    return any(not wrong for _, wrong in verdicts)


def _left(dataset: ImageDataset, verdicts: dict, attempts: int) -> list[str]:
    """Images to ask about: those already paid for first, then all classes mixed."""
    mixed = list(dataset.ids)
    Random(0).shuffle(mixed)
    answers = {image: verdicts.get(image, []) for image in mixed}
    left = [one for one in mixed if len(answers[one]) < attempts and not _passes(answers[one])]
    return sorted(left, key=lambda image: not answers[image])


def load_written(
    journal: Path | str, dataset: ImageDataset, kinds: Sequence[str] = KINDS, seed: int = 0
) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions of a journal that pass the checks, and counts, as `write_instructions` gives
    them.

    The categorical kind needs no writer and is there for every image. Raises FileNotFoundError, and
    InputError for an unknown kind or a damaged journal.
    """
    if not Path(journal).is_file():
        raise FileNotFoundError(2, "no such journal", str(journal))
    verdicts = _Journal(Path(journal)).verdicts(dataset)
    written, counts = write_instructions(dataset, kinds, seed)
    written = [item for item in written if item.kind == "categorical"]
    counts = {kind: len(dataset) if kind == "categorical" else 0 for kind in counts}
    prompts = {"conversation": CONVERSATION_PROMPT, "reasoning": REASONING_PROMPT}
    for image in dataset.ids:
        answers = verdicts.get(image, [({}, "")])
        sections, wrong = next((one for one in answers if one[0]), answers[-1])
        for kind in kinds:
            if kind in sections:
                written.append(Instruction(image, kind, prompts[kind], sections[kind]))
            if kind != "categorical":
                leaked = "leaked" if wrong == "names the emotion" else "not written"
                counts[kind if kind in sections else leaked] += 1
    Random(seed).shuffle(written)
    return written, counts


# -------------------------------------------------------------------------------- estimate and report


@dataclass(frozen=True)
class Plan:
    """What is left to ask and what it would take: tokens, money (None without prices), minutes."""

    images: int
    left: int
    requests: int
    tokens_in: int
    tokens_out: int
    cost: float | None
    minutes: float
    formula: str

    def __str__(self) -> str:
        money = "" if self.cost is None else f", cost {self.cost:,.2f}"
        return (
            f"{self.left:,} of {self.images:,} images left, {self.requests:,} requests: "
            f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out{money}, "
            f"{self.minutes:,.0f} min or more at the rate\n({self.formula})"
        )


def estimate(dataset: ImageDataset, settings: WriterSettings, folder: Path | str) -> Plan:
    """What `write_with_model` would ask, without asking: no key, no connection.

    Before the first answer by a formula, with one answer an image; then by the journal's means.
    """
    journal = _Journal(journal_path(folder, settings))
    images = _left(dataset, journal.verdicts(dataset), settings.attempts)
    fresh = sum(image not in journal.images for image in images)
    room = max(0, (settings.max_images or math.inf) - len(journal.images))
    left = len(images) - fresh + min(fresh, room)
    answers = [entry for entry in journal.entries if "text" in entry]
    if answers:
        requests = math.ceil(left * len(answers) / len({entry["image"] for entry in answers}))
        each = [sum(entry[name] for entry in answers) / len(answers) for name in ("in", "out")]
        formula = f"means of the {len(answers):,} answers in the journal"
    else:
        requests, each = left, [settings.input_tokens, settings.answer_tokens]
        image = settings.image_tokens or "85 + 170 a tile of 512 px"
        formula = (
            f"a request: 1 token for {CHARACTERS_PER_TOKEN} characters of the prompt, {image} for "
            f"the image, {each[0]} in all; an answer: {each[1]} at most; up to "
            f"{settings.attempts} answers where one fails the checks"
        )
    tokens = [math.ceil(requests * count) for count in each]
    minutes = requests / settings.requests_per_minute
    return Plan(len(dataset), left, requests, *tokens, settings.cost(*tokens), minutes, formula)


@dataclass(frozen=True)
class WriterReport:
    """What became of the images and of the answers.

    outcomes: images by what became of them. rejected: answers by what is wrong with them. answers:
    how many. tokens_in, tokens_out: spent, of which estimated: requests whose server told no usage;
    lost: answers that may have been paid for and did not arrive. failures: images left out in this
    run, by the server's words. stopped: why the run ended before its end, else "". unmatched: items
    of an imported file that fit no image.
    """

    journal: Path
    images: int
    outcomes: dict[str, int]
    rejected: dict[str, int]
    answers: int
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = None
    estimated: int = 0
    lost: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    stopped: str = ""
    unmatched: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Counts and shares, with Wilson's interval: of finished images, then of all answers."""
        rows = []
        for of, counts in (("images", self.outcomes), ("answers", self.rejected)):
            n = self.answers if of == "answers" else sum(counts.values())
            rows += [(of, what, k, share(k, n).percent) for what, k in counts.items()]
        table = pd.DataFrame(rows, columns=["of", "what", "count", "share"])
        return table.set_index(["of", "what"])

    def __str__(self) -> str:
        lines = [self.table().to_string()] if self.answers else []
        lines += [f"{sum(self.outcomes.values()):,} of {self.images:,} images finished"]
        money = "" if self.cost is None else f", cost {self.cost:,.4f}"
        lines += [f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out{money}"]
        if self.estimated:
            lines += [f"{self.estimated:,} of these requests told no usage: estimated"]
        if self.lost:
            lines += [
                f"{self.lost:,} answers were lost on the way: counted with their cost at most"
            ]
        lines += [f"failed {k:,} x: {why}" for why, k in Counter(self.failures).most_common(5)]
        if self.unmatched:
            shown = ", ".join(self.unmatched[:5]) + ", ..." * (len(self.unmatched) > 5)
            lines += [f"{len(self.unmatched):,} items fit no image: {shown}"]
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        return "\n".join([*lines, f"journal: {self.journal}"])


def _report(
    journal: _Journal, verdicts: dict, dataset: ImageDataset, attempts: int, **about
) -> WriterReport:
    outcomes = Counter({"written": 0, "rewritten": 0})
    for answers in verdicts.values():
        if _passes(answers):
            outcomes["rewritten" if answers[0][1] else "written"] += 1
        elif len(answers) >= attempts:
            outcomes[f"set aside: {answers[-1][1]}"] += 1
    wrong = Counter(why for answers in verdicts.values() for _, why in answers if why)
    return WriterReport(
        journal.path,
        len(dataset),
        dict(outcomes),
        {f"rejected: {why}": count for why, count in wrong.most_common()},
        answers=sum(map(len, verdicts.values())),
        tokens_in=journal.spent["in"],
        tokens_out=journal.spent["out"],
        estimated=sum("text" in one and not one["measured"] for one in journal.entries),
        lost=sum(one.get("lost", 0) for one in journal.entries),
        **about,
    )


# -------------------------------------------------------------------------------------------- asking


def write_with_model(
    dataset: ImageDataset, settings: WriterSettings, folder: Path | str, progress: bool = True
) -> WriterReport:
    """Ask a model about every image of ``dataset`` that its journal in ``folder`` lacks.

    An answer that fails the checks is asked for again, up to ``attempts`` answers; then the image
    is set aside. The first request goes alone: it shows what one costs. A request that may exceed a
    budget is not sent. Ctrl-C and SIGTERM end the run after the requests under way; a second one
    ends it at once.

    Raises InputError where the package openai or the key is missing, or another process writes to
    the journal. What a server refuses is told in the report.
    """
    run = _Run(dataset, settings, journal_path(folder, settings))
    try:
        run.all(progress)
    finally:
        run.journal.close()
    spent = run.journal.spent
    return _report(
        run.journal,
        run.verdicts,
        dataset,
        settings.attempts,
        cost=settings.cost(spent["in"], spent["out"]),
        failures=dict(run.failures),
        stopped=run.why,
    )


class _Stopped(Exception):
    """The run is to end, and this request is not to be sent."""


class _Run:
    """One run of `write_with_model`: what the workers share."""

    def __init__(self, dataset: ImageDataset, settings: WriterSettings, path: Path):
        self.dataset, self.settings = dataset, settings
        self.secret = (os.environ.get("OPENAI_API_KEY") or "").strip()
        self.client = self._client()
        self.journal = _Journal(path, write=True, model=settings.model, key=settings.key)
        self.verdicts = self.journal.verdicts(dataset)
        self.labels = _labels(dataset)
        self.left = _left(dataset, self.verdicts, settings.attempts)
        self.queue, self.asked = iter(self.left), set(self.journal.images)
        self.failures: Counter[str] = Counter()
        self.failed_in_a_row = self.under_way = 0
        self.next_send, self.why = 0.0, ""
        self.lock, self.stop, self.mine = threading.Lock(), threading.Event(), threading.local()
        self.settled = threading.Condition(self.lock)

    def _client(self):
        """openai's client, with its requests spaced and counted as they are sent."""
        try:
            import openai
        except ModuleNotFoundError as error:
            if error.name != "openai":
                raise
            raise InputError('writing needs openai: `pip install -e ".[openai]"`') from None
        url = os.environ.get("OPENAI_BASE_URL") or None
        if not self.secret and not url:
            raise InputError(
                "set OPENAI_API_KEY in the environment; for a server of your own that needs none, "
                "set OPENAI_BASE_URL alone"
            )
        if not (self.secret.isascii() and self.secret.isprintable()) or " " in self.secret:
            raise InputError("OPENAI_API_KEY holds characters that no key has: copy it again")
        hooks = {"request": [self._pace], "response": [self._count_refused]}
        timeout = self.settings.timeout
        return openai.OpenAI(
            api_key=self.secret or "none",
            base_url=url,
            timeout=timeout,
            max_retries=self.settings.max_retries,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks, timeout=timeout),
        )

    def _pace(self, request) -> None:
        with self.lock:
            now = time.monotonic()
            at = max(now, self.next_send)
            self.next_send = at + 60 / self.settings.requests_per_minute
        lost_one = self.mine.sent > self.mine.refused  # it may have to be paid for twice
        if self.stop.wait(at - now) or lost_one and not self._reserve(self.mine.image):
            raise _Stopped
        request.extensions["trace"] = self._count_sent

    def _count_sent(self, event: str, info: dict) -> None:
        self.mine.sent += event.endswith("send_request_body.complete")

    def _count_refused(self, response) -> None:
        self.mine.refused += response.status_code >= 300

    def redacted(self, text: str) -> str:
        """``text`` without the key."""
        secret = len(self.secret) >= MIN_SECRET
        return text.replace(self.secret, "[key]") if secret else text

    def halt(self, why: str) -> None:
        """End the run after the requests under way; the first reason is told."""
        self.why = self.why or why
        self.stop.set()

    def all(self, progress: bool) -> None:
        """Ask about every image that is left."""
        workers = self.settings.concurrency
        with (
            tqdm(total=len(self.left), unit="image", disable=not progress) as self.bar,
            _signals(self.halt),
            ThreadPoolExecutor(workers) as pool,
        ):
            try:
                _finish([pool.submit(self._work, 1)])
                _finish([pool.submit(self._work) for _ in range(workers)])
            finally:
                self.stop.set()

    def _work(self, limit: int = -1) -> None:
        try:
            while limit:
                with self.lock:
                    image = None if self.stop.is_set() else next(self.queue, None)
                if image is None:
                    return
                self._write(image)
                self.bar.update()
                limit -= 1
        except BaseException:
            self.halt("an error on this side")
            raise

    def _write(self, image: str) -> None:
        """Ask about one image until an answer passes or the attempts are used up."""
        answers, label = self.verdicts.pop(image, []), self.labels[image]
        about = {"image": image, "label": label, "sha256": _digest(self.dataset, image)}
        picture = _data_url(self.dataset.open(image), self.settings.image_side)
        while len(answers) < self.settings.attempts and not _passes(answers):
            prompt = PROMPT.format(label=label)
            prompt += AGAIN.format(hint=HINTS[answers[-1][1]]) if answers else ""
            self.mine.image, self.mine.reserved = image, 0
            self.mine.sent = self.mine.refused = 0
            entry = None
            try:
                if self._reserve(image):
                    entry = self._ask(prompt, picture)
                if entry:
                    self.journal.append(about | entry)
                    finish = entry["finish"]
                    answers.append(judge(entry["text"], label, self.dataset.label_set, finish))
            finally:
                if lost := self.mine.sent - self.mine.refused - bool(entry):
                    tokens = {name: lost * count for name, count in self._at_most().items()}
                    self.journal.append(about | tokens | {"measured": False, "lost": lost})
                with self.lock:
                    self.under_way -= self.mine.reserved
                    self.settled.notify_all()
                    if image not in self.journal.images:
                        self.asked.discard(image)
            if not entry:
                break
        if answers:
            self.verdicts[image] = answers

    def _at_most(self) -> dict[str, int]:
        """Tokens of the next request: by the formula, or more where an answer has cost more."""
        known = {"in": self.settings.input_tokens, "out": self.settings.answer_tokens}
        return {name: max(count, self.journal.most[name]) for name, count in known.items()}

    def _reserve(self, image: str) -> bool:
        """Whether the budgets bear one more request; the run ends where they do not.

        Before it ends, the requests under way are waited for: they may cost less than they could.
        """
        with self.lock:
            while not self.stop.is_set():
                if why := self._beyond_budget(image):
                    if self.under_way and not self.mine.reserved:
                        self.settled.wait(0.5)
                        continue
                    self.halt(why)
                    break
                self.asked.add(image)
                self.under_way += 1
                self.mine.reserved += 1
                return True
            return False

    def _beyond_budget(self, image: str) -> str:
        budget, each, spent = self.settings, self._at_most(), self.journal.spent
        tokens = [spent[name] + (self.under_way + 1) * count for name, count in each.items()]
        if image not in self.asked and len(self.asked) >= (budget.max_images or math.inf):
            return f"the budget of {budget.max_images:,} images is used up"
        if sum(tokens) > (budget.max_tokens or math.inf):
            return f"one more request may exceed the budget of {budget.max_tokens:,} tokens"
        if budget.max_cost and budget.cost(*tokens) > budget.max_cost:
            return f"one more request may exceed the budget of {budget.max_cost:g}"
        return ""

    def _ask(self, prompt: str, picture: str) -> dict | None:
        """What the journal keeps of the server's answer; None where it gave none."""
        import openai

        parts = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": prompt},
        ]
        warmth = self.settings.temperature
        try:
            raw = self.client.chat.completions.with_raw_response.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": parts}],
                max_completion_tokens=self.settings.answer_tokens,
                temperature=openai.omit if warmth is None else warmth,
            )
            entry = self._entry(raw.http_response.text)
            self.failed_in_a_row = 0
            return entry
        except _Stopped:
            return None
        except openai.OpenAIError as error:
            refused = getattr(error, "status_code", None) in (401, 403, 404)
            why = f"{error} {error.__cause__ or ''}"
        except (ValueError, LookupError, TypeError, AttributeError):
            refused, why = False, "what came is no chat completion; is OPENAI_BASE_URL right?"
        why = " ".join(self.redacted(why).split())[:200]
        with self.lock:
            self.failures[why] += 1
            self.failed_in_a_row += 1
            if refused:
                self.halt(f"the server refuses: {why}")
            elif self.failed_in_a_row >= GIVE_UP:
                self.halt(f"{GIVE_UP} requests in a row failed, the last: {why}")
        return None

    def _entry(self, body: str) -> dict:
        """What the journal keeps of a chat completion; ValueError and the like for anything
        else."""
        answer = json.loads(body)
        choice = answer["choices"][0]
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        if not isinstance(text, str):
            text = "".join(part.get("text") or "" for part in text)
        text = self.redacted(text.encode("utf-8", "replace").decode())
        usage = answer.get("usage") or {}
        tokens = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        measured = all(isinstance(count, int) and count >= 0 for count in tokens)
        if not measured:
            tokens = self.settings.input_tokens, math.ceil(len(text) / CHARACTERS_PER_TOKEN)
        told = {"in": tokens[0], "out": tokens[1], "measured": measured}
        return {"text": text, "finish": self.redacted(str(choice.get("finish_reason")))} | told


def _data_url(image: Image.Image, side: int) -> str:
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    to = io.BytesIO()
    image.save(to, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(to.getvalue()).decode()


def _finish(futures: Sequence[Future]) -> None:
    while wait(futures, timeout=0.5).not_done:  # signals are handled between two waits
        pass
    for future in futures:
        future.result()


@contextmanager
def _signals(halt: Callable[[str], None]) -> Iterator[None]:
    """While this lasts, the first Ctrl-C or SIGTERM calls ``halt``; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, object] = {}

    def restore(number=None, frame=None) -> None:
        for known, handler in before.items():
            signal.signal(known, handler)
        if number is not None:
            halt("interrupted")

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, restore)
    try:
        yield
    finally:
        restore()


# --------------------------------------------------------------------------------------------- import


def import_written(
    path: Path | str, dataset: ImageDataset, folder: Path | str
) -> tuple[Path, WriterReport]:
    """Answers in the JSON that the paper's published code writes, as a journal in ``folder``.

    The form (github.com/sange1104/EmoVLM-KD, generate_instruction.py): a list of objects with
    ``gpt_response`` (the answer, with sections ``1. Key elements`` and ``2. Reasoning``),
    ``img_path``, ``img`` (its file name) and ``label``. An item belongs to the image whose id ends
    like its path and whose label is the same; the checks are those of fresh answers. Returns the
    journal, for `load_written`, and the report. Raises InputError for another form.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        items = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON in UTF-8 ({error})") from None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(
            f"{path}: wanted is a list of objects, each with gpt_response and img_path"
        )
    if items and not any("gpt_response" in item for item in items):
        raise InputError(f"{path}: no object has a gpt_response; found: {', '.join(items[0])}")

    ends: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for image in dataset.ids:
        parts = PurePosixPath(image).parts
        for start in range(len(parts)):
            ends[parts[start:]].add(image)
    labels, entries, unmatched = _labels(dataset), [], []
    for item in items:
        name = str(item.get("img_path") or item.get("img") or "")
        parts = PurePosixPath(name.replace("\\", "/")).parts
        found = next((ends[parts[-n:]] for n in (3, 2, 1) if parts[-n:] in ends), ())
        image = next(iter(found)) if len(found) == 1 else None
        given, text = item.get("label"), item.get("gpt_response")
        same = given is None or dataset.label_set.canonical(str(given)) == labels.get(image)
        if image is None or not same or not isinstance(text, str):
            unmatched.append(name or "an object without img_path")
            continue
        about = {"image": image, "label": labels[image], "sha256": _digest(dataset, image)}
        free = {"finish": "stop", "in": 0, "out": 0, "measured": True}
        entries.append(about | {"text": text} | free)
    to = Path(folder) / f"imported-{hashlib.sha256(data).hexdigest()[:16]}.jsonl"
    to.unlink(missing_ok=True)
    journal = _Journal(to, write=True, model="imported")
    journal.append(*entries)
    journal.close()
    told = {"unmatched": tuple(unmatched)}
    return to, _report(journal, journal.verdicts(dataset), dataset, 1, **told)


def main(args) -> int:
    """The command ``write-instructions``: estimate, ask or import, and report."""
    from ..run.pipeline import Pipeline

    settings = None
    if args.model:
        names = {one.name for one in fields(WriterSettings)}
        given = {k: v for k, v in vars(args).items() if k in names and v is not None}
        settings = WriterSettings(**given)
    pipeline = Pipeline(args.profile, args.data, args.runs, args.skip_bad, progress=False)
    train, folder = pipeline.dataset.split("train"), args.out or pipeline.folder / "instructions"
    if settings is None:
        print(import_written(args.source, train, folder)[1])
        return 0
    print(estimate(train, settings, folder), flush=True)
    if args.dry_run:
        return 0
    report = write_with_model(train, settings, folder)
    print(report)
    if report.stopped == "interrupted":
        return 130
    return int(bool(report.failures))
