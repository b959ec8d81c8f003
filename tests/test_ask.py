"""The writer against scripted servers on this machine: budgets, faults, kill and resume."""

import base64
import contextlib
import io
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from emokd_utils.data import load_dataset
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.instructions import CONVERSATION_PROMPT, REASONING_PROMPT, read_instructions
from emokd_utils.scale.ask import WriterSettings, estimate, write_with_model
from emokd_utils.scale.judging import judge

SECRET = "sk-test-0123456789abcdef"
SEEN = "A wooden house stands beside the water, and the light is dim with long shadows."
WHY = "The empty rooms and the grey light suggest that nobody will return to this place."
GOOD = f"Key elements: {SEEN}\n\nReasoning: {WHY}"
LEAKING = f"Key elements: {SEEN}\n\nReasoning: {WHY} That is sad and full of awe."
USAGE = {"prompt_tokens": 400, "completion_tokens": 60}
FAST = WriterSettings("gpt-test", requests_per_minute=60_000, timeout=5, answer_tokens=100)


def completion(text):
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return 200, json.dumps({"choices": choices, "usage": USAGE})


class Server:
    """Chat completions on this machine: script(n, request) gives the reply to the n-th request, as
    (status, body), or "cut" or "drop" for a connection closed amid the body or before it.
    ``paid`` counts the answers that a provider would ask money for."""

    def __init__(self, script):
        self.requests, self.times, self.paid, self.most, self.under_way = [], [], 0, 0, 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                about = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(server.requests)
                    server.requests.append(about | {"key": self.headers["Authorization"]})
                    server.times.append(time.monotonic())
                    server.under_way += 1
                    server.most = max(server.most, server.under_way)
                reply = script(number, about)
                with lock:
                    server.under_way -= 1
                    server.paid += reply in ("cut", "drop") or reply[0] == 200
                with contextlib.suppress(OSError):  # the client may have gone
                    if reply == "cut":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
                    elif reply != "drop":
                        self.send_response(reply[0])
                        self.send_header("Content-Length", str(len(reply[1].encode())))
                        self.send_header("Content-Type", "application/json")
                        self.end_headers()
                        self.wfile.write(reply[1].encode())

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def serve():
    servers = []

    def start(script):
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def always(text):
    return lambda number, request: completion(text)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 6), ("val", 1), ("test", 1)):
        for place, label in enumerate(("awe", "sadness")):
            (root / split / label).mkdir(parents=True)
            for k in range(count):
                image = Image.new("RGB", (700, 300), (40 * k, 90 * place, 10 * len(split)))
                image.save(root / split / label / f"{label}{k}.png")
    return load_dataset(root).split("train")


def write(train, folder, server, **settings):
    keys = {"base_url": server.url, "api_key": SECRET}
    return write_with_model(train, replace(FAST, **settings), folder, **keys)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (GOOD, ""),
        (f"<think>Key elements: none. Reasoning: no.</think>{GOOD}", ""),
        (f"Key elements: {SEEN}", "section missing"),
        (f"Key elements: {SEEN}\nReasoning: I cannot say what this image is about.", "refused"),
        (f"Key elements: {SEEN}\nReasoning: It is dark.", "too short"),
        (f"Key elements: {SEEN * 20}\nReasoning: {WHY}", "too long"),
        (f"Key elements: {SEEN} Sadly grey.\nReasoning: {WHY}", "names the emotion"),
        (f"Key elements: {SEEN}\nReasoning: {'Das Haus im grauen Licht. ' * 3}", "not English"),
    ],
)
def test_an_answer_is_checked(text, wrong):
    sections, found = judge(text, "sadness", MIKELS)
    assert found == wrong and set(sections) == set([] if wrong else ["conversation", "reasoning"])
    assert judge(text, "sadness", MIKELS, "length") == ({}, "cut off")


def test_every_image_is_asked_about_once_and_the_answers_are_instructions(serve, train, tmp_path):
    server = serve(always(f"I see.</think>{GOOD}<|image_pad|><|im_end|>"))
    report = write(train, tmp_path, server)
    assert (report.counts["written"], report.counts["rewritten"]) == (12, 0)
    assert (report.counts["tokens in"], report.counts["tokens out"]) == (12 * 400, 12 * 60)
    assert report.stopped == "" and not report.failures and "written: 12" in str(report)
    written, counts = read_instructions(report.journal, train, ["conversation", "reasoning"])
    assert counts == {"conversation": 12, "reasoning": 12, "leaked": 0, "not written": 0}
    pairs = {(item.prompt, item.answer) for item in written}
    assert pairs == {(CONVERSATION_PROMPT, SEEN), (REASONING_PROMPT, WHY)}
    assert write(train, tmp_path, server) == report
    assert len(server.requests) == server.paid == 12
    whole = report.journal.read_bytes()
    report.journal.write_bytes(whole[:-30])  # a torn line: only that image is asked about again
    assert write(train, tmp_path, server).counts["written"] == 12 and server.paid == 13


def test_requests_show_the_image_small_and_keep_the_rate(serve, train, tmp_path):
    server = serve(always(GOOD))
    write(train, tmp_path, server, image_side=64, requests_per_minute=60 / 0.04)
    gaps = [b - a for a, b in zip(server.times[1:], server.times[2:], strict=False)]
    assert server.most <= FAST.concurrency and sum(gaps) >= 0.03 * len(gaps)
    request = server.requests[0]
    assert request["key"] == f"Bearer {SECRET}"
    assert (request["model"], request["max_completion_tokens"]) == ("gpt-test", 100)
    picture, text = request["messages"][0]["content"]
    assert "evokes awe." in text["text"] or "evokes sadness." in text["text"]
    data = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as shown:
        assert (shown.format, shown.size, dict(shown.getexif())) == ("JPEG", (64, 27), {})


def test_a_bad_answer_is_asked_for_again_with_the_reason_and_then_set_aside(serve, train, tmp_path):
    def script(number, request):
        text = request["messages"][0]["content"][1]["text"]
        return completion(GOOD if "must not be used" in text and "sadness" in text else LEAKING)

    server = serve(script)
    report = write(train, tmp_path, server)
    assert [report.counts[name] for name in ("written", "rewritten")] == [0, 6]
    assert report.counts["answers"] == 6 * 2 + 6 * 3
    assert report.counts["set aside: names the emotion"] == 6
    assert report.counts["rejected: names the emotion"] == 6 + 6 * 3
    assert write(train, tmp_path, server) == report
    assert server.paid == report.counts["answers"]
    _, counts = read_instructions(report.journal, train)
    assert (counts["conversation"], counts["leaked"], counts["not written"]) == (6, 12, 0)


def test_faults_are_tried_again_and_what_may_have_been_paid_for_is_counted(serve, train, tmp_path):
    faults = {1: (429, "{}"), 3: (500, "not now"), 5: "cut", 7: "drop", 9: (200, "{not JSON")}
    gone = threading.Event()

    def script(number, request):
        if number == 11:
            gone.wait(60)
        return faults.get(number, completion(GOOD))

    server = serve(script)
    report = write(train, tmp_path, server, concurrency=1, timeout=1)
    gone.set()
    while server.under_way:  # the client has left before the answer
        time.sleep(0.01)
    assert report.counts["written"] == 12 and not report.failures
    assert report.counts["lost"] == 4  # cut, drop, no JSON, and the one too slow
    assert server.paid == 12 + report.counts["lost"]
    most = max(FAST.at_most["in"], USAGE["prompt_tokens"])
    assert report.counts["tokens in"] == 12 * USAGE["prompt_tokens"] + 4 * most


def failure(message, code):
    return json.dumps({"error": {"message": message, "code": code}})


def test_an_error_inside_a_status_200_is_waited_for_and_nothing_is_booked(serve, train, tmp_path):
    limit = (200, failure("Too many requests, slow down", 429))
    broken = (200, json.dumps({"choices": [{"error": {"message": "upstream is away"}}]}))
    server = serve(lambda n, _: {1: limit, 3: broken}.get(n, completion(GOOD)))
    report = write(train, tmp_path, server)
    assert report.counts["written"] == 12 and not report.failures and len(server.requests) == 14
    assert report.counts["lost"] == 0 and report.counts["tokens in"] == 12 * USAGE["prompt_tokens"]


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (429, "You exceeded your current quota, check your plan", "insufficient_quota"),
        (402, "Insufficient Balance", "invalid_request_error"),
        (200, "This request requires more credits, or fewer max_tokens", 402),
        (400, "Your credit balance is too low to access the API", None),
    ],
)
def test_no_credit_ends_the_run_at_the_first_answer(serve, train, tmp_path, status, message, code):
    server = serve(lambda number, request: (status, failure(message, code)))
    report = write(train, tmp_path, server)
    assert len(server.requests) == 1 and message in report.stopped
    assert report.counts["lost"] == report.counts["tokens in"] == 0


def test_a_server_that_knows_only_max_tokens_is_asked_so(serve, train, tmp_path):
    def script(number, request):
        if "max_completion_tokens" not in request:
            return completion(GOOD)
        return 422, json.dumps({"detail": [{"loc": ["body", "max_completion_tokens"]}]})

    server = serve(script)
    assert write(train, tmp_path, server).counts["written"] == 12
    assert len(server.requests) == 13 and server.requests[-1]["max_tokens"] == 100


def test_a_proxy_that_cannot_be_used_is_told(serve, train, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "foo://proxy:1")
    with pytest.raises(InputError, match="a proxy cannot be used: .*foo.*unset HTTP_PROXY"):
        write(train, tmp_path, serve(always(GOOD)))


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals and closed streams")
@pytest.mark.parametrize("ends", ["shown to nobody", "asked to end"])
def test_the_command_goes_on_unseen_and_ends_when_asked(serve, train, tmp_path, ends):
    held = threading.Event()

    def script(number, request):
        if ends == "asked to end" and number >= 3:
            held.wait(60)
        return completion(GOOD)

    server = serve(script)
    asked = ["write-instructions", "--data", train.root, "--runs", tmp_path, "--model", "m"]
    process = subprocess.Popen(
        [sys.executable, "-m", "emokd_utils", *map(str, asked), "--rpm", "60000"],
        env=os.environ | {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stderr.close()
    process.stdout.close()
    if ends == "asked to end":
        while len(server.requests) < 5:
            assert process.poll() is None
            time.sleep(0.05)
        for _ in range(2):  # as `timeout` does
            process.send_signal(signal.SIGTERM)
    assert process.wait(60) == (130 if ends == "asked to end" else 0)
    held.set()
    journal = next(tmp_path.rglob("*.jsonl")).read_text("utf-8")
    assert journal.count('"text"') == (3 if ends == "asked to end" else 12)
    assert journal.count('"lost"') + journal.count('"text"') >= len(server.requests)


def test_an_image_without_a_chat_completion_is_left_for_the_next_run(serve, train, tmp_path):
    server = serve(lambda n, _: (200, '{"choices": []}') if n < 3 else completion(GOOD))
    report = write(train, tmp_path, server)
    assert report.counts["written"] == 11 and report.counts["lost"] == 3
    assert [*report.failures.values()] == [1] and "no chat completion" in str(report)
    assert write(train, tmp_path, server).counts["written"] == 12


@pytest.mark.parametrize("there", [True, False])
def test_a_server_that_refuses_or_is_not_there_ends_the_run_and_costs_nothing(
    serve, train, tmp_path, there
):
    server = serve(lambda number, request: (401, '{"error": {"message": "no such key"}}'))
    if not there:
        server.http.server_close()
    report = write(train, tmp_path, server, concurrency=1, max_retries=0)
    assert "5 requests in a row failed" in report.stopped
    assert ("no such key" in report.stopped) == there and len(server.requests) == 5 * there
    assert all(report.counts[name] == 0 for name in ("answers", "lost", "tokens in"))


def test_a_budget_of_images_mixes_the_classes_and_is_resumed(serve, train, tmp_path):
    server = serve(always(GOOD))
    report = write(train, tmp_path, server, max_images=5)
    assert (server.paid, report.counts["written"]) == (5, 5)
    assert "may exceed the budget" in report.stopped
    written, _ = read_instructions(report.journal, train, ["reasoning"])
    assert len({item.image_id.split("/")[1] for item in written}) == 2
    assert write(train, tmp_path, server).counts["written"] == server.paid == 12


def test_a_budget_is_never_exceeded(serve, train, tmp_path):
    server = serve(always(GOOD))
    report = write(train, tmp_path, server, max_cost=0.0025, price_in=1.0, price_out=1.0)
    spent = report.counts["tokens in"] + report.counts["tokens out"]
    assert spent <= 2500 < spent + USAGE["prompt_tokens"] + FAST.answer_tokens
    assert "may exceed the budget" in report.stopped


def test_an_estimate_asks_nothing_and_learns_from_the_journal(serve, train, tmp_path):
    settings = replace(FAST, requests_per_minute=6, price_in=2.0, price_out=8.0)
    tokens = FAST.at_most["in"] * 12
    cost = (tokens * 2 + 1200 * 8) / 1e6
    words = f"12 of 12 images left, 12 requests: {tokens:,} tokens in, 1,200 out, cost {cost:,.2f},"
    assert estimate(train, settings, tmp_path).startswith(f"{words} 2 min")
    assert not list(tmp_path.iterdir())
    write(train, tmp_path, serve(always(GOOD)), max_images=4)
    text = estimate(train, settings, tmp_path)
    assert f"8 of 12 images left, 8 requests: {8 * 400:,} tokens in, {8 * 60} out" in text
    assert estimate(train, replace(settings, max_images=6), tmp_path).startswith("2 of 12")
    with pytest.raises(InputError, match="price"):
        replace(FAST, max_cost=1.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_after_a_kill_nothing_in_the_journal_is_paid_for_twice(serve, train, tmp_path):
    held = threading.Event()

    def script(number, request):
        if number >= 5 and not held.is_set():
            held.wait(20)
        return completion(GOOD)

    server = serve(script)
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=write, args=(train, tmp_path, server), kwargs={"concurrency": 2})
    process.start()
    while len(server.requests) < 7:
        assert process.is_alive()
        time.sleep(0.02)
    with pytest.raises(InputError, match="another process"):
        write(train, tmp_path, server)
    process.kill()
    process.join()
    held.set()
    assert write(train, tmp_path, server).counts["written"] == 12
    assert len(server.requests) == 12 + 2  # those under way


@pytest.mark.skipif(os.name != "posix", reason="signals a thread")
def test_ctrl_c_ends_the_run_after_the_requests_under_way(serve, train, tmp_path):
    def script(n, request):
        if n == 3:  # to the thread that waits, wherever the system would send it
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        time.sleep(0.2 if n >= 3 else 0)
        return completion(GOOD)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test's server may have taken
    server = serve(script)
    report = write(train, tmp_path, server, concurrency=2)
    assert report.stopped == "interrupted"
    assert report.counts["written"] == server.paid == len(server.requests) < 12
    assert write(train, tmp_path, server).counts["written"] == server.paid == 12


@pytest.mark.parametrize("status", [200, 401])
def test_the_key_is_nowhere(serve, train, tmp_path, capsys, caplog, status):
    caplog.set_level(logging.DEBUG)

    def script(number, request):
        if status == 200:
            return completion(f"Key elements: {SEEN}\nReasoning: {WHY} {SECRET}")
        words = f"{'x' * 150} the key {SECRET} of {SECRET}"
        return status, json.dumps({"error": {"message": words}})

    report = write(train, tmp_path, serve(script), max_retries=0)
    texts = [str(report), repr(report), caplog.text, *capsys.readouterr()]
    texts += [path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert "[key]" in "".join(texts)
    assert SECRET[:10] not in "".join(texts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "set OPENAI_API_KEY"),
        ({"api_key": "sk-01234\u2026abc"}, "OPENAI_API_KEY holds characters that no key has: copy"),
        ({"base_url": "localhost:8000/v1"}, "OPENAI_BASE_URL is localhost"),
    ],
)
def test_a_missing_or_broken_key_or_address_is_told(train, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        write_with_model(train, FAST, tmp_path, **options)
