"""Instructions written by a large model that sees the image and is told its label (lesson 4).

Asked is any server that speaks OpenAI's chat completions. Sent of an image are its pixels, shrunk,
as a JPEG without metadata. `judging` has the question and says which answers can be used, `journal`
keeps them: what a kill can lose is the requests under way. The package openai tries again what the
server turns away. A request that may have been paid for without an answer is kept with its cost at
most; then its image is asked about anew, if the budget bears it.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import threading
import time
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image
from tqdm.auto import tqdm

from ..data import ImageDataset
from ..errors import InputError
from ..files import fingerprint
from ..instructions import JOURNAL_FORMAT, journal_answers
from ..settings import ABOVE_0, COUNT, INF, within
from .journal import (
    WriterReport,
    about_image,
    appending,
    images_left,
    journal_requests,
    judged,
    passes,
    report,
)
from .judging import AGAIN, HINTS, PROMPT

GIVE_UP = 5  # requests in a row that failed, each after all its retries
CHARACTERS_PER_TOKEN = 3  # English has about four, so this counts too many rather than too few
MIN_SECRET = 8  # characters; a shorter key ("none", "EMPTY") is no secret and could be any word


@dataclass(frozen=True)
class WriterSettings:
    """How to ask, and for how much; the budgets include what the journal already holds.

    Raises InputError for values out of range, and max_cost without prices.
    """

    model: str  # its name at the server
    concurrency: int = 4  # requests under way at once
    requests_per_minute: float = 60.0  # evenly spaced, retries included
    max_retries: int = 6  # of one request that the server turns away
    timeout: float = 120.0  # of one try, in seconds
    answer_tokens: int = 500  # limit of an answer
    image_side: int = 512  # longer side in pixels that an image is shrunk to
    attempts: int = 3  # answers to one image before it is set aside
    max_images: float = INF
    max_tokens: float = INF
    max_cost: float = INF
    price_in: float | None = None  # of a million tokens, in the currency of max_cost
    price_out: float | None = None

    def __post_init__(self) -> None:
        within(self, concurrency=COUNT, requests_per_minute=ABOVE_0, timeout=ABOVE_0)
        within(self, max_retries=(0, INF), answer_tokens=COUNT, image_side=COUNT, attempts=COUNT)
        within(self, max_images=COUNT, max_tokens=COUNT, max_cost=(0, INF))
        if not self.model.strip():
            raise InputError("give the model a name, as its server knows it")
        if None not in (self.price_in, self.price_out):
            within(self, price_in=(0, INF), price_out=(0, INF))
        elif self.max_cost < INF:
            raise InputError(
                "a budget in money needs prices: give price_in and price_out, each for a million "
                "tokens (--price-in, --price-out)"
            )

    @property
    def key(self) -> str:
        """16 hexadecimal digits of what the answers depend on: prompts, model, limit, image."""
        about = (self.model, self.answer_tokens, self.image_side)
        return fingerprint([JOURNAL_FORMAT, PROMPT, AGAIN, HINTS, *about])

    @property
    def at_most(self) -> dict[str, int]:
        """Tokens that a request may cost before any is measured; an image as GPT-4o counts it."""
        text = len(PROMPT) + len(AGAIN) + max(map(len, HINTS.values()))
        image = 85 + 170 * math.ceil(self.image_side / 512) ** 2
        return {"in": image + math.ceil(text / CHARACTERS_PER_TOKEN), "out": self.answer_tokens}

    def cost(self, tokens_in: float, tokens_out: float) -> float | None:
        """Price of so many tokens; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


def journal_path(folder: Path | str, settings: WriterSettings) -> Path:
    """The journal of these settings in ``folder``: ``<model>-<key>.jsonl``."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", settings.model).strip("_.")[-60:]
    return Path(folder) / f"{name}-{settings.key}.jsonl"


def estimate(dataset: ImageDataset, settings: WriterSettings, folder: Path | str) -> str:
    """What `write_with_model` would ask and what it would take, without asking anybody.

    Before the first answer by a formula, with one answer an image; then by the journal's means.
    """
    requests = journal_requests(journal_path(folder, settings))
    left = images_left(dataset, journal_answers(requests, dataset), settings.attempts)
    paid = {request["image"] for request in requests}
    begun = sum(image in paid for image in left)
    images = begun + min(len(left) - begun, max(0, settings.max_images - len(paid)))
    asked, each = images, settings.at_most
    formula = (
        f"a request: 1 token for {CHARACTERS_PER_TOKEN} characters of the prompt, 85 + 170 a tile "
        f"of 512 px for the image, {each['in']} in all; an answer: {each['out']} at most; up to "
        f"{settings.attempts} answers where one fails the checks"
    )
    if answers := [request for request in requests if "text" in request]:
        asked = math.ceil(images * len(answers) / len({answer["image"] for answer in answers}))
        each = {name: sum(one[name] for one in answers) / len(answers) for name in each}
        formula = f"means of the {len(answers):,} answers in the journal"
    tokens_in, tokens_out = (math.ceil(asked * count) for count in each.values())
    cost = settings.cost(tokens_in, tokens_out)
    return (
        f"{images:,} of {len(dataset):,} images left, {asked:,} requests: {tokens_in:,} tokens in, "
        f"{tokens_out:,} out{'' if cost is None else f', cost {cost:,.2f}'}, "
        f"{asked / settings.requests_per_minute:,.0f} min or more at the rate\n({formula})"
    )


# Asking


class _Reply(NamedTuple):
    """What the journal is to keep of a request, nothing if it costs nothing; and why it failed.

    final: the server will refuse the other requests too.
    """

    entry: dict
    failure: str = ""
    final: bool = False


class _Lost(Exception):
    """An answer that may have to be paid for did not arrive."""


class _Ended(Exception):
    """The run has ended before the request was sent."""


class _Server:
    """Chat completions at an address, spaced in time until the run has ended."""

    def __init__(self, settings: WriterSettings, base_url: str | None, api_key: str | None):
        try:
            import openai
        except ModuleNotFoundError:
            raise InputError('writing needs openai: `pip install -e ".[openai]"`') from None
        key = (api_key or "").strip()
        if not key and not base_url:
            raise InputError(
                "there is no key: set OPENAI_API_KEY in the environment; for a server of your own "
                "that needs none, set OPENAI_BASE_URL alone"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InputError("OPENAI_API_KEY holds characters that no key has: copy it again")
        if base_url and not base_url.startswith(("http://", "https://")):
            raise InputError(f"OPENAI_BASE_URL is {base_url}: give an address, as http://HOST/v1")
        self.openai, self.settings, self.key = openai, settings, key
        self.lock, self.ended, self.turn = threading.Lock(), threading.Event(), 0.0
        wait_for_turn = self._wait_for_turn

        class Client(openai.DefaultHttpxClient):
            def send(self, request, **options):
                wait_for_turn()
                try:
                    return super().send(request, **options)
                except Exception as error:
                    if "Connect" in type(error).__name__:  # nothing was sent: openai tries again
                        raise
                    raise _Lost(f"{type(error).__name__} {error}") from error

        self.client = openai.OpenAI(
            api_key=key or "none",
            base_url=base_url or None,
            max_retries=settings.max_retries,
            timeout=settings.timeout,
            http_client=Client(timeout=settings.timeout),
        )

    def _wait_for_turn(self) -> None:
        with self.lock:
            now = time.monotonic()
            at = max(now, self.turn)
            self.turn = at + 60 / self.settings.requests_per_minute
        if self.ended.wait(at - now):
            raise _Ended

    def ask(self, image: Image.Image, prompt: str) -> _Reply:
        """One request, tried again while the server turns it away."""
        picture = {"type": "image_url", "image_url": {"url": self._data_url(image)}}
        content = [picture, {"type": "text", "text": prompt}]
        try:
            completion = self.client.chat.completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": content}],
                max_completion_tokens=self.settings.answer_tokens,
            )
            return _Reply(self._entry(completion))
        except _Ended:
            return _Reply({})
        except _Lost as error:
            return _Reply({"lost": 1}, f"an answer was lost on the way: {error}")
        except self.openai.OpenAIError as error:
            words = self._without_key(f"{error} {error.__cause__ or ''}")
            final = getattr(error, "status_code", None) in (401, 403, 404)
            return _Reply({}, " ".join(words.split())[:200], final)
        except (ValueError, LookupError, TypeError, AttributeError):
            return _Reply({"lost": 1}, "what came is no chat completion; is the address right?")

    def _data_url(self, image: Image.Image) -> str:
        to, side = io.BytesIO(), self.settings.image_side
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        image.save(to, "JPEG", quality=90)
        return "data:image/jpeg;base64," + base64.b64encode(to.getvalue()).decode()

    def _entry(self, completion) -> dict:
        choice, usage = completion.choices[0], completion.usage
        text = self._without_key(choice.message.content or choice.message.refusal or "")
        text = text.encode("utf-8", "replace").decode()  # a half of a pair is no text
        counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        measured = None not in counts
        if not measured:
            counts = [self.settings.at_most["in"], math.ceil(len(text) / CHARACTERS_PER_TOKEN)]
        about = {"in": counts[0], "out": counts[1], "measured": measured}
        return {"text": text, "finish": str(choice.finish_reason)} | about

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "[key]") if len(self.key) >= MIN_SECRET else text


class _Run:
    """One run of `write_with_model`. The threads only ask; all else happens in the main one."""

    def __init__(self, dataset: ImageDataset, server: _Server, journal: Path, file: IO):
        self.dataset, self.server, self.file = dataset, server, file
        self.settings = server.settings
        self.paid, self.spent, self.most = set(), Counter(), Counter()
        requests = journal_requests(journal)
        for request in requests:
            self._count(request)
        self.answers = journal_answers(requests, dataset)
        self.queue = deque(images_left(dataset, self.answers, self.settings.attempts))
        self.under_way: dict[Future, dict] = {}  # request -> what the journal says of its image
        self.failures, self.failed_in_a_row, self.why = Counter(), 0, ""

    def all(self, progress: bool) -> None:
        """Ask about every image of the queue, until a budget or the user ends it."""
        with (
            ThreadPoolExecutor(self.settings.concurrency) as pool,
            tqdm(total=len(self.queue), unit="image", disable=not progress) as self.bar,
        ):
            try:
                self._send(pool)
                while self.under_way:
                    for future in wait(self.under_way, return_when=FIRST_COMPLETED).done:
                        self._settle(future)
                    self._send(pool)
            except KeyboardInterrupt:
                self._end("interrupted")
            finally:  # what is under way may have to be paid for
                self.server.ended.set()
                for future in wait(self.under_way).done:
                    self._settle(future)

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.server.ended.set()

    def _send(self, pool: ThreadPoolExecutor) -> None:
        """Send what may be under way at once; the very first goes alone, to show what one costs."""
        at_once = self.settings.concurrency if self.most else 1
        while self.queue and not self.why and len(self.under_way) < at_once:
            if why := self._beyond_budget(self.queue[0]):
                if not self.under_way:  # else they may cost less than they could
                    self._end(why)
                return
            image = self.queue.popleft()
            about = about_image(self.dataset, image)
            prompt = PROMPT.format(label=about["label"])
            if hint := HINTS.get(self.answers[image][-1]["wrong"] if self.answers[image] else ""):
                prompt += AGAIN.format(hint=hint)
            self.under_way[pool.submit(self._ask, image, prompt)] = about

    def _ask(self, image: str, prompt: str) -> _Reply:
        return self.server.ask(self.dataset.open(image), prompt)

    def _at_most(self) -> dict[str, int]:
        """Tokens of the next request: by the formula, or more where an answer has cost more."""
        return {name: max(n, self.most[name]) for name, n in self.settings.at_most.items()}

    def _beyond_budget(self, image: str) -> str:
        """Which budget does not bear a request about ``image`` beside those under way, or ""."""
        budget, number = self.settings, len(self.under_way) + 1
        tokens = [self.spent[name] + number * count for name, count in self._at_most().items()]
        first = {about["image"] for about in self.under_way.values()} - self.paid
        if image not in self.paid and len(self.paid) + len(first) >= budget.max_images:
            return f"the budget of {budget.max_images:,} images is used up"
        if sum(tokens) > budget.max_tokens:
            return f"one more request may exceed the budget of {budget.max_tokens:,} tokens"
        if (budget.cost(*tokens) or 0) > budget.max_cost:
            return f"one more request may exceed the budget of {budget.max_cost:g}"
        return ""

    def _settle(self, future: Future[_Reply]) -> None:
        """Write a reply to the journal, and put its image back where it is to be asked again."""
        about, reply = self.under_way.pop(future), future.result()
        answers = self.answers[about["image"]]
        if "text" in reply.entry:
            answers.append(judged(about | reply.entry, self.dataset))
            self._append(answers[-1])
        elif reply.entry:
            answers.append(
                about | self._at_most() | {"measured": False, "wrong": "lost", "lost": 1}
            )
            self._append(answers[-1])
        self.failed_in_a_row = self.failed_in_a_row + 1 if reply.failure else 0
        if reply.final:
            self._end(f"the server refuses: {reply.failure}")
        elif self.failed_in_a_row >= GIVE_UP:
            self._end(f"{GIVE_UP} requests in a row failed, the last: {reply.failure}")
        if reply.entry and len(answers) < self.settings.attempts and not passes(answers):
            self.queue.appendleft(about["image"])
        else:
            self.failures.update([reply.failure] * bool(reply.failure))
            self.bar.update()

    def _append(self, request: dict) -> None:
        """Add a request to the journal; when this returns it is on the disk."""
        end, line = self.file.seek(0, os.SEEK_END), json.dumps(request).encode() + b"\n"
        try:
            if self.file.write(line) < len(line):
                raise OSError(f"an answer was not written to {self.file.name}; is the disk full?")
            os.fsync(self.file.fileno())
        except OSError:
            self.file.truncate(end)
            raise
        self._count(request)

    def _count(self, request: dict) -> None:
        tokens = Counter({name: request[name] for name in ("in", "out")})
        self.paid.add(request["image"])
        self.spent.update(tokens)
        if "text" in request:
            self.most |= tokens


def write_with_model(
    dataset: ImageDataset,
    settings: WriterSettings,
    folder: Path | str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
) -> WriterReport:
    """Ask a model about every image of ``dataset`` that its journal in ``folder`` lacks.

    base_url: of the server (default: OpenAI). api_key: kept nowhere. An answer that fails the
    checks is asked for again, up to ``attempts`` answers; then the image is set aside. A request
    that may exceed a budget is not sent. Ctrl-C ends the run after the requests under way.

    Raises InputError where the package openai or the key is missing, or another process writes to
    the journal. What a server refuses is told in the report.
    """
    server, journal = _Server(settings, base_url, api_key), journal_path(folder, settings)
    with appending(journal) as file:
        run = _Run(dataset, server, journal, file)
        run.all(progress)
    cost = settings.cost(run.spent["in"], run.spent["out"])
    about = {"failures": dict(run.failures), "stopped": run.why}
    return report(journal, dataset, settings.attempts, cost=cost, **about)
