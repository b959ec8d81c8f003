"""Instructions written by a large model that sees the image and is told its label (lesson 4). Asked is
any server that speaks OpenAI's chat completions. A kill loses at most the requests under way; what
may have been paid for without an answer is kept with its cost at most."""

import base64
import math
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread, current_thread

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..data import ImageDataset
from ..errors import InputError
from ..files import fingerprint
from ..images import shrunk
from ..instructions import JOURNAL_FORMAT
from ..settings import ABOVE_0, COUNT, INF, within
from .journal import Journal, WriterReport, entry
from .judging import AGAIN, HINTS, PROMPT

GIVE_UP = 5  # requests in a row that failed, each after all its retries
GRACE = 5.0  # seconds that an interrupted run waits for the requests under way
_NO_CREDIT = re.compile(
    r"(?i)insufficient[\W_]{0,2}(?:quota|credit|balance|fund)|exceeded[^.]{0,30}(?:quota|budget)|billing"
    r"|(?:quota|budget|credits?|limit)[^.]{0,20}(?:exceeded|exhausted|depleted|used up)|credit balance"
    r"|(?:out of|no|more) (?:credit|quota)|payment required"
)
_SOON_AGAIN = re.compile(
    r"(?i)retry.?(?:in|after|delay)|try again|per.?(?:min|sec)|rate.?limit|too many requests"
)


@dataclass(frozen=True)
class WriterSettings:
    """How to ask, and for how much, what the journal holds included. InputError out of range."""

    model: str  # its name at the server
    concurrency: int = 4  # requests under way at once
    requests_per_minute: float = 60.0  # evenly spaced; openai's retries come on top
    max_retries: int = 6  # of one request that the server turns away
    timeout: float = 120.0  # of one try, in seconds
    answer_tokens: int = 500  # limit of an answer
    image_side: int = 512  # longer side in pixels that an image is shrunk to
    max_images: float = INF
    max_cost: float = INF
    price_in: float = 0.0  # of a million tokens, in the currency of max_cost
    price_out: float = 0.0

    def __post_init__(self) -> None:
        counts = ("concurrency", "answer_tokens", "image_side", "max_images")
        amounts = dict.fromkeys(("max_retries", "max_cost", "price_in", "price_out"), (0, INF))
        within(self, requests_per_minute=ABOVE_0, timeout=ABOVE_0, **amounts)
        within(self, **dict.fromkeys(counts, COUNT))
        if self.max_cost < INF and not (self.price_in and self.price_out):
            raise InputError("a budget in money needs prices: give --price-in and --price-out")

    @property
    def at_most(self) -> dict[str, int]:
        """Tokens that a request may cost before any is measured; an image as GPT-4o counts it."""
        text = len(PROMPT + AGAIN) + max(map(len, HINTS.values()))  # 3 characters a token, not 4
        image = 85 + 170 * math.ceil(self.image_side / 512) ** 2
        return {"in": image + math.ceil(text / 3), "out": self.answer_tokens}

    def cost(self, tokens_in: float, tokens_out: float) -> float:
        """Price of so many tokens; 0 without prices."""
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


def journal_path(folder: Path | str, settings: WriterSettings) -> Path:
    """The journal in ``folder`` of what the answers depend on: ``<model>-<key>.jsonl``."""
    asked = [settings.model, settings.answer_tokens, settings.image_side]
    key = fingerprint([JOURNAL_FORMAT, PROMPT, AGAIN, HINTS, *asked])
    name = re.sub("[^A-Za-z0-9.-]+", "_", settings.model).strip("_.")[-60:]
    return Path(folder) / f"{name}-{key}.jsonl"


def estimate(dataset: ImageDataset, settings: WriterSettings, folder: Path | str) -> str:
    """What `write_with_model` would ask and what it would take, without asking anybody."""
    journal = Journal(journal_path(folder, settings), dataset)
    left, done = len(journal.left()), len(journal.requests)
    asked = images = min(left, max(0, settings.max_images - len(dataset) + left))
    each, formula = settings.at_most, "tokens by a formula, one answer an image"
    if done:
        asked = math.ceil(images * done / len(journal.paid))
        each = {name: journal.spent[name] / done for name in each}
        formula = f"means of the {done:,} requests in the journal"
    tokens_in, tokens_out = (math.ceil(asked * count) for count in each.values())
    cost = settings.cost(tokens_in, tokens_out)
    return (
        f"{images:,} of {len(dataset):,} images left, {asked:,} requests: {tokens_in:,} tokens in, "
        f"{tokens_out:,} out{f', cost {cost:,.2f}' if cost else ''}, "
        f"{asked / settings.requests_per_minute:,.0f} min or more at the rate\n({formula})"
    )


def _connected(settings: WriterSettings, base_url: str | None, key: str):
    """A client that tries again what the server turns away, but not what was lost; and the names of
    the threads that have sent something and wait for the answer, a set that changes."""
    try:
        import openai
    except ModuleNotFoundError:
        raise InputError('writing needs openai: `pip install -e ".[openai]"`') from None
    if not key and not base_url:
        raise InputError("set OPENAI_API_KEY, or OPENAI_BASE_URL alone for a server without keys")
    if not re.fullmatch("[!-~]*", key):
        raise InputError("OPENAI_API_KEY holds characters that no key has: copy it again")
    if base_url and not base_url.startswith(("http://", "https://")):
        raise InputError(f"OPENAI_BASE_URL is {base_url}: give an address, as http://HOST/v1")

    sending: set[str] = set()

    class Client(openai.DefaultHttpxClient):
        def send(self, request, **options):
            sending.add(current_thread().name)
            try:
                response = super().send(request, **options)
            except Exception as error:
                if re.search("Connect|Proxy", type(error).__name__):  # nothing was sent
                    raise
                raise EOFError(f"{type(error).__name__} {error}") from error
            finally:
                sending.discard(current_thread().name)
            response.status_code = _true_status(response)
            if response.status_code >= 400 and _is_out_of_credit(response.text):
                response.headers["x-should-retry"] = "false"
            return response

    options = {"max_retries": settings.max_retries, "base_url": base_url or None}
    try:
        http = Client(timeout=settings.timeout)
    except Exception as error:  # whatever httpx raises on a proxy that it cannot use
        names = "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
        raise InputError(f"a proxy cannot be used: {error}; mend or unset {names}") from error
    return openai.OpenAI(api_key=key or "none", http_client=http, **options), sending


def _true_status(response) -> int:
    """The status of a response; where a body of status 200 holds an error, what that is."""
    try:
        body = response.json()
    except ValueError:
        return response.status_code
    choices = isinstance(body, dict) and body.get("choices") or [{}]
    is_error = isinstance(body, dict) and (body.get("error") or body.get("object") == "error")
    if response.status_code != 200 or not (is_error or choices[0].get("error")):
        return response.status_code
    code = re.search(r"""['"](?:code|status)['"]:\s*['"]?([45]\d\d)\b""", response.text)
    return int(code[1]) if code else 429 if _SOON_AGAIN.search(response.text) else 500


def _is_out_of_credit(words: str) -> bool:
    """Whether a server says that no request will be answered until somebody pays."""
    soon = _SOON_AGAIN.search(words) and "insufficient_quota" not in words
    return bool(_NO_CREDIT.search(words)) and not soon


def _started(ask: Callable[[str], tuple], image: str) -> Future:
    """What a thread of this image's name is doing; it keeps no process from ending."""
    future = Future()

    def carry_out() -> None:
        try:
            future.set_result(ask(image))
        except Exception as error:
            future.set_exception(error)

    Thread(target=carry_out, name=image, daemon=True).start()
    return future


class _Run:
    """The threads only ask; all else happens in the main one."""

    def __init__(self, journal: Journal, settings: WriterSettings, client, sending: set, key: str):
        self.journal, self.settings, self.client, self.key = journal, settings, client, key
        self.sending, self.under_way = sending, {}  # images that were sent; request -> its image
        self.queue = deque(journal.left())
        self.failures, self.failed_in_a_row, self.why, self.turn = Counter(), 0, "", 0.0
        self.limit = "max_completion_tokens"  # as the server calls it

    def all(self) -> None:
        self.journal.save()  # without a torn end
        with tqdm(total=len(self.queue), unit="image") as self.bar:
            try:
                while self._send():
                    self._settle(FIRST_COMPLETED)
            except KeyboardInterrupt:
                self.why = "interrupted"
            finally:  # what is under way may have to be paid for
                with suppress(KeyboardInterrupt):  # a second one: wait no longer
                    self._settle(ALL_COMPLETED, GRACE)
                for image in self.under_way.values():
                    if image in self.sending:
                        self.journal.append(self._lost(image))

    def _send(self) -> bool:
        """Send what may be under way at once; the very first goes alone, to show what one costs."""
        at_once = self.settings.concurrency if self.journal.most else 1
        while self.queue and not self.why and len(self.under_way) < at_once:
            if self._beyond_budget(self.queue[0]):  # those under way may cost less
                self.why = "" if self.under_way else "one more request may exceed the budget"
                break
            time.sleep(max(0, self.turn - time.monotonic()))
            self.turn = time.monotonic() + 60 / self.settings.requests_per_minute
            image = self.queue.popleft()
            self.under_way[_started(self._ask, image)] = image
        return bool(self.under_way)

    def _at_most(self) -> dict[str, int]:
        """Tokens of the next request: by the formula, or more where an answer has cost more."""
        return dict(Counter(self.settings.at_most) | self.journal.most)

    def _beyond_budget(self, image: str) -> bool:
        budget, paid, number = self.settings, self.journal.paid, len(self.under_way) + 1
        tokens = [self.journal.spent[name] + number * n for name, n in self._at_most().items()]
        images = paid | {image, *self.under_way.values()}
        over = image not in paid and len(images) > budget.max_images
        return over or budget.cost(*tokens) > budget.max_cost

    def _ask(self, image: str) -> tuple[dict, str, bool]:
        """What goes to the journal, why it failed, and whether every other one will."""
        dataset = self.journal.dataset
        prompt = PROMPT.format(label=dataset.table.at[image, "label"])
        earlier = self.journal.answers.get(image) or [{"wrong": ""}]
        if hint := HINTS.get(earlier[-1]["wrong"]):
            prompt += AGAIN.format(hint=hint)
        jpeg = shrunk(dataset.open(image), self.settings.image_side, 90, "JPEG")
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        picture = {"type": "image_url", "image_url": {"url": url}}
        content = [picture, {"type": "text", "text": prompt}]
        try:
            completion = self.client.chat.completions.create(
                model=self.settings.model,
                messages=[{"role": "user", "content": content}],
                extra_body={self.limit: self.settings.answer_tokens},
            )
            return entry(image, dataset, self._answer(completion)), "", False
        except EOFError as error:
            return self._lost(image), f"an answer was lost on the way: {error}", False
        except (ValueError, LookupError, TypeError, AttributeError):
            failure = "what came is no chat completion; is the address right?"
            return self._lost(image), failure, False
        except Exception as error:  # of openai: the server turned it away or is not there
            body = getattr(error, "body", None) or ""
            if isinstance(body, dict) and str(body.get("message")) in str(error):
                body = ""
            words = self._without_key(f"{error} {body} {error.__cause__ or ''}")
            if "max_completion_tokens" in words and self.limit != "max_tokens":
                self.limit = "max_tokens"  # the older name
                return self._ask(image)
            return {}, words[:200], _is_out_of_credit(words)

    def _lost(self, image: str) -> dict:  # an answer that may have been paid for
        reply = {"lost": 1, "measured": False} | self._at_most()
        return entry(image, self.journal.dataset, reply)

    def _answer(self, completion) -> dict:
        choice, usage, tokens = completion.choices[0], completion.usage, self._at_most()
        text = self._without_key(choice.message.content or choice.message.refusal or "")
        if usage:
            tokens = {"in": int(usage.prompt_tokens), "out": int(usage.completion_tokens)}
        return {"text": text, "finish": str(choice.finish_reason), "measured": bool(usage)} | tokens

    def _without_key(self, text: str) -> str:
        # A shorter key, such as "none" and "EMPTY", is no secret and could be any word.
        return text.replace(self.key, "[key]") if len(self.key) >= 8 else text

    def _settle(self, until: str, timeout: float | None = None) -> None:
        for future in wait(self.under_way, timeout, until).done:
            image, (request, failure, is_final) = self.under_way[future], future.result()
            if request:
                self.journal.append(request)
            del self.under_way[future]
            self.failed_in_a_row = self.failed_in_a_row + 1 if failure else 0
            if is_final or self.failed_in_a_row >= GIVE_UP:
                often = "" if is_final else f"{GIVE_UP} requests in a row failed, the last: "
                self.why = self.why or often + failure
            if request and self.journal.wanted(image):
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
) -> WriterReport:
    """Ask a model about every image of ``dataset`` that its journal in ``folder`` lacks. base_url: of
    the server (default: OpenAI). api_key: kept nowhere. Ctrl-C ends the run some seconds later; what
    is still under way then counts as lost. InputError without the package openai or a key, or beside
    another process."""
    key, path = (api_key or "").strip(), journal_path(folder, settings)
    client, sending = _connected(settings, base_url, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{path}.lock", timeout=0):
            run = _Run(Journal(path, dataset), settings, client, sending, key)
            run.all()
    except Timeout:
        raise InputError(f"another process is writing to {path}: wait for it") from None
    counts = Journal(path, dataset).counts()
    counts["cost"] = settings.cost(counts["tokens in"], counts["tokens out"])
    return WriterReport(path, counts, run.failures, run.why)
