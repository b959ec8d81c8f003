"""Instructions written by a large model that sees the image and is told its label (lesson 4).

Asked is any server that speaks OpenAI's chat completions; it sees the pixels of an image, shrunk.
What a kill can lose is the requests under way. The package openai tries again what the server turns
away. A request that may have been paid for without an answer is kept with its cost at most; then
its image is asked about anew, if the budget bears it.
"""

import base64
import io
import math
import re
import time
from collections import Counter, deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image
from tqdm.auto import tqdm

from ..data import ImageDataset
from ..errors import InputError
from ..files import fingerprint
from ..instructions import JOURNAL_FORMAT
from ..settings import ABOVE_0, COUNT, INF, within
from .journal import OLD_FORMAT, Journal, WriterReport, about_image, judged, open_journal
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
    requests_per_minute: float = 60.0  # evenly spaced; openai's retries come on top
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
    """The journal in ``folder`` of what the answers depend on: ``<model>-<key>.jsonl``."""
    return _path(
        folder, settings.model, JOURNAL_FORMAT, settings.answer_tokens, settings.image_side
    )


def _path(folder: Path | str, model: str, file_format: str, *about) -> Path:
    key = fingerprint([file_format, PROMPT, AGAIN, HINTS, model, *about])
    return Path(folder) / f"{re.sub('[^A-Za-z0-9.-]+', '_', model).strip('_.')[-60:]}-{key}.jsonl"


def _opened(dataset: ImageDataset, settings: WriterSettings, folder: Path | str) -> Journal:
    about = (settings.answer_tokens, None, settings.image_side)  # None: the temperature was its own
    old = _path(folder, settings.model, OLD_FORMAT, *about)
    return open_journal(journal_path(folder, settings), dataset, old)


def estimate(dataset: ImageDataset, settings: WriterSettings, folder: Path | str) -> str:
    """What `write_with_model` would ask and what it would take, without asking anybody.

    Before the first answer by a formula, with one answer an image; then by the journal's means.
    """
    journal = _opened(dataset, settings, folder)
    left = journal.left(settings.attempts)
    begun = sum(image in journal.paid for image in left)
    images = begun + min(len(left) - begun, max(0, settings.max_images - len(journal.paid)))
    asked, each = images, settings.at_most
    formula = (
        f"a request: 1 token for {CHARACTERS_PER_TOKEN} characters of the prompt, 85 + 170 a tile "
        f"of 512 px for the image, {each['in']} in all; an answer: {each['out']} at most; up to "
        f"{settings.attempts} answers where one fails the checks"
    )
    if answers := [request for request in journal.requests if "text" in request]:
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


class _Lost(Exception):
    """An answer that may have to be paid for did not arrive."""


def _connected(settings: WriterSettings, base_url: str | None, key: str):
    """A client of openai, which tries again what the server turns away but not what was lost, and
    the class of its errors."""
    try:
        import openai
    except ModuleNotFoundError:
        raise InputError('writing needs openai: `pip install -e ".[openai]"`') from None
    if not key and not base_url:
        raise InputError(
            "there is no key: set OPENAI_API_KEY in the environment; for a server of your own "
            "that needs none, set OPENAI_BASE_URL alone"
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError("OPENAI_API_KEY holds characters that no key has: copy it again")
    if base_url and not base_url.startswith(("http://", "https://")):
        raise InputError(f"OPENAI_BASE_URL is {base_url}: give an address, as http://HOST/v1")

    class Client(openai.DefaultHttpxClient):
        def send(self, request, **options):
            try:
                return super().send(request, **options)
            except Exception as error:
                if "Connect" in type(error).__name__:  # nothing was sent: openai tries again
                    raise
                raise _Lost(f"{type(error).__name__} {error}") from error

    client = openai.OpenAI(
        api_key=key or "none",
        base_url=base_url or None,
        max_retries=settings.max_retries,
        timeout=settings.timeout,
        http_client=Client(timeout=settings.timeout),
    )
    return client, openai.OpenAIError


class _Run:
    """One run of `write_with_model`. The threads only ask; all else happens in the main one."""

    def __init__(self, journal: Journal, settings: WriterSettings, client, refusal, key: str):
        self.journal, self.settings = journal, settings
        self.client, self.refusal, self.key = client, refusal, key
        self.queue = deque(journal.left(settings.attempts))
        self.under_way: dict[Future, dict] = {}  # request -> what the journal says of its image
        self.failures, self.failed_in_a_row, self.why, self.turn = Counter(), 0, "", 0.0

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
                self.why = "interrupted"
            finally:  # what is under way may have to be paid for
                for future in wait(self.under_way).done:
                    self._settle(future)

    def _send(self, pool: ThreadPoolExecutor) -> None:
        """Send what may be under way at once; the very first goes alone, to show what one costs."""
        at_once = self.settings.concurrency if self.journal.most else 1
        while self.queue and not self.why and len(self.under_way) < at_once:
            if why := self._beyond_budget(self.queue[0]):
                if not self.under_way:  # else they may cost less than they could
                    self.why = why
                return
            time.sleep(max(0, self.turn - time.monotonic()))
            self.turn = time.monotonic() + 60 / self.settings.requests_per_minute
            about = about_image(self.queue.popleft(), self.journal.dataset)
            prompt = PROMPT.format(label=about["label"])
            answers = self.journal.answers[about["image"]]
            if hint := HINTS.get(answers[-1]["wrong"] if answers else ""):
                prompt += AGAIN.format(hint=hint)
            self.under_way[pool.submit(self._ask, about["image"], prompt)] = about

    def _at_most(self) -> dict[str, int]:
        """Tokens of the next request: by the formula, or more where an answer has cost more."""
        most = self.journal.most
        return {name: max(n, most[name]) for name, n in self.settings.at_most.items()}

    def _beyond_budget(self, image: str) -> str:
        """Which budget does not bear a request about ``image`` beside those under way, or ""."""
        budget, paid, number = self.settings, self.journal.paid, len(self.under_way) + 1
        tokens = [self.journal.spent[name] + number * n for name, n in self._at_most().items()]
        images = paid | {image} | {about["image"] for about in self.under_way.values()}
        if image not in paid and len(images) > budget.max_images:
            return f"the budget of {budget.max_images:,} images is used up"
        if sum(tokens) > budget.max_tokens:
            return f"one more request may exceed the budget of {budget.max_tokens:,} tokens"
        if (budget.cost(*tokens) or 0) > budget.max_cost:
            return f"one more request may exceed the budget of {budget.max_cost:g}"
        return ""

    def _ask(self, image: str, prompt: str) -> tuple[dict, str]:
        """What the journal is to keep of a request, nothing if it costs nothing, and why it
        failed."""
        jpeg, side = io.BytesIO(), self.settings.image_side
        shown = self.journal.dataset.open(image)
        shown.thumbnail((side, side), Image.Resampling.LANCZOS)
        shown.save(jpeg, "JPEG", quality=90)
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
        picture = {"type": "image_url", "image_url": {"url": url}}
        content = [picture, {"type": "text", "text": prompt}]
        try:
            completion = self.client.chat.completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": content}],
                max_completion_tokens=self.settings.answer_tokens,
            )
            return self._entry(completion), ""
        except _Lost as error:
            return {"lost": 1}, f"an answer was lost on the way: {error}"
        except (ValueError, LookupError, TypeError, AttributeError):
            return {"lost": 1}, "what came is no chat completion; is the address right?"
        except self.refusal as error:
            words = self._without_key(f"{error} {error.__cause__ or ''}")
            return {}, " ".join(words.split())[:200]

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

    def _settle(self, future: Future) -> None:
        """Write a reply to the journal, and put its image back where it is to be asked again."""
        about, (entry, failure) = self.under_way.pop(future), future.result()
        image, answers = about["image"], self.journal.answers[about["image"]]
        if entry:
            lost = {} if "text" in entry else self._at_most() | {"measured": False}
            answers.append(judged(about | lost | entry, self.journal.dataset))
            self.journal.append(answers[-1])
        self.failed_in_a_row = self.failed_in_a_row + 1 if failure else 0
        if self.failed_in_a_row >= GIVE_UP:
            self.why = self.why or f"{GIVE_UP} requests in a row failed, the last: {failure}"
        if entry and len(answers) < self.settings.attempts and not self.journal.passes(image):
            self.queue.appendleft(image)
        else:
            self.failures.update([failure] * bool(failure))
            self.bar.update()


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
    key, path = (api_key or "").strip(), journal_path(folder, settings)
    connected = _connected(settings, base_url, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=0):
            journal = _opened(dataset, settings, folder)
            journal.save()
            run = _Run(journal, settings, *connected, key)
            run.all(progress)
    except Timeout:
        raise InputError(f"another process is writing to {path}: wait for it") from None
    counts = _opened(dataset, settings, folder).counts(settings.attempts)
    cost = settings.cost(counts["tokens in"], counts["tokens out"])
    return WriterReport(path, counts, cost, dict(run.failures), run.why)
