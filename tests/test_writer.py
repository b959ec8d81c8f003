"""The writer against servers on this machine: a scripted one, and `transformers serve`."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from emokd_utils.cli import commands as cli
from emokd_utils.data import load_dataset
from emokd_utils.emotions import MIKELS, infer_label_set
from emokd_utils.errors import InputError
from emokd_utils.instructions import CONVERSATION_PROMPT, REASONING_PROMPT
from emokd_utils.scale import ask as writer
from emokd_utils.scale.ask import (
    WriterSettings,
    estimate,
    import_written,
    journal_path,
    judge,
    load_written,
    write_with_model,
)

ROOT = Path(__file__).resolve().parent.parent
SECRET = "sk-test-0123456789abcdef"
SEEN = "A wooden house stands beside the water, and the light is dim with long shadows."
WHY = "The empty rooms and the grey light suggest that nobody will return to this place."
GOOD = f"Key elements: {SEEN}\n\nReasoning: {WHY}"
LEAKING = f"Key elements: {SEEN}\n\nReasoning: {WHY} That is sad and full of awe."
USAGE = {"prompt_tokens": 400, "completion_tokens": 60}
FAST = WriterSettings("gpt-test", requests_per_minute=60_000, timeout=5, answer_tokens=100)


def completion(text, usage=USAGE, finish="stop"):
    message = {"role": "assistant", "content": text}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    return 200, {}, json.dumps(body | ({"usage": usage} if usage else {}))


class Server:
    """Chat completions on this machine, by a script.

    script(n, request) gives the reply to the n-th request (from 0): (status, headers, body), or
    "cut" for a connection closed amid the body, or "drop" for one closed before it. ``paid`` counts
    the answers that a provider would ask money for.
    """

    def __init__(self, script):
        self.requests, self.times, self.paid, self.most = [], [], 0, 0
        self.under_way, self.lock = 0, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                data = self.rfile.read(int(self.headers["Content-Length"]))
                about = json.loads(data)
                about["path"], about["key"] = self.path, self.headers["Authorization"]
                with server.lock:
                    number = len(server.requests)
                    server.requests.append(about)
                    server.times.append(time.monotonic())
                    server.under_way += 1
                    server.most = max(server.most, server.under_way)
                try:
                    self.answer(script(number, about))
                except OSError:  # the client has gone
                    pass
                finally:
                    with server.lock:
                        server.under_way -= 1

            def answer(self, reply):
                if reply in ("cut", "drop"):
                    server.paid += 1
                    if reply == "cut":
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, body = reply
                server.paid += status == 200
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json"} | headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        server = self
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def settle(self):
        """Wait until no request is under way: the client may have left before its answer."""
        while self.under_way:
            time.sleep(0.01)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def serve(monkeypatch):
    servers = []

    def start(script):
        servers.append(Server(script))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].url)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def always(text, **about):
    return lambda number, request: completion(text, **about)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 6), ("val", 1), ("test", 1)):
        for place, label in enumerate(("awe", "sadness")):
            folder = root / split / label
            folder.mkdir(parents=True)
            for k in range(count):
                colour = (40 * k, 90 * place, 10 * len(split))
                Image.new("RGB", (700, 300), colour).save(folder / f"{label}{k}.png")
    return root


@pytest.fixture
def train(root):
    return load_dataset(root).split("train")


def write(train, folder, **settings):
    return write_with_model(train, replace(FAST, **settings), folder, progress=False)


# -------------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (GOOD, ""),
        (f"1. **Key elements** \n{SEEN}\n\n2. **Reasoning**\n{WHY}", ""),
        (f"## Key Elements:\n- {SEEN}\n- {SEEN}\n\n## Reasoning process\n{WHY}", ""),
        (f"<think>Key elements: none. Reasoning: no.</think>{GOOD}", ""),
        (f"Key elements: {SEEN}", "section missing"),
        (f"Reasoning: {WHY}\nKey elements: {SEEN}", "section missing"),
        (f"Key elements:\n\nReasoning: {WHY}", "section missing"),
        ("", "section missing"),
        ("lamp brings nothing.", "section missing"),
        ("I'm sorry, but I can't help with that.", "refused"),
        (f"Key elements: {SEEN}\nReasoning: I cannot say what this image is about.", "refused"),
        (f"Key elements: {SEEN}\nReasoning: It is dark.", "too short"),
        (f"Key elements: {SEEN * 20}\nReasoning: {WHY}", "too long"),
        (LEAKING, "names the emotion"),
        (f"Key elements: {SEEN} Sadly grey.\nReasoning: {WHY}", "names the emotion"),
        (
            f"Key elements: {SEEN}\nReasoning: Das leere Haus und das graue Licht lassen vermuten, "
            "dass niemand an diesen Ort kommt.",
            "not English",
        ),
        (
            f"Key elements: {SEEN}\nReasoning: La maison vide et la lumière grise font penser que "
            "personne ne reviendra plus dans cet endroit.",
            "not English",
        ),
        (f"Key elements: {SEEN}\nReasoning: {'Пустой дом и серый свет. ' * 3}", "not English"),
    ],
)
def test_an_answer_is_checked(text, wrong):
    sections, found = judge(text, "sadness", MIKELS)
    assert found == wrong
    assert set(sections) == (set() if wrong else {"conversation", "reasoning"})


def test_a_label_of_several_words_is_found():
    labels = infer_label_set(["quiet joy", "Schrecken"])
    text = f"Key elements: {SEEN}\nReasoning: {WHY} There is a Quiet-Joy in it."
    assert judge(text, "quiet joy", labels)[1] == "names the emotion"
    assert judge(GOOD, "quiet joy", labels)[1] == ""


def test_sections_come_without_headings_and_markdown():
    text = f"1. **Key elements:**\n* {SEEN}\n- It is **grey**.\n\n2. **Reasoning**: {WHY}\n"
    sections, _ = judge(text, "sadness", MIKELS)
    assert sections == {"conversation": f"{SEEN} It is grey.", "reasoning": WHY}


def test_what_the_server_ended_early_is_not_used():
    assert judge(GOOD, "sadness", MIKELS, "length")[1] == "cut off"
    assert judge(GOOD, "sadness", MIKELS, "content_filter")[1] == "refused"


# ------------------------------------------------------------------------------------------- a run


def test_every_image_is_asked_about_once_and_the_answers_are_instructions(serve, train, tmp_path):
    server = serve(always(GOOD))
    report = write(train, tmp_path)
    assert report.outcomes == {"written": 12, "rewritten": 0}
    assert (report.tokens_in, report.tokens_out) == (12 * 400, 12 * 60)
    assert report.stopped == "" and not report.failures
    assert "100.0 %" in str(report)
    written, counts = load_written(report.journal, train)
    assert counts == {
        "categorical": 12,
        "conversation": 12,
        "reasoning": 12,
        "leaked": 0,
        "not written": 0,
    }
    prompts = {"conversation": CONVERSATION_PROMPT, "reasoning": REASONING_PROMPT}
    answers = {"conversation": SEEN, "reasoning": WHY}
    for item in written:
        if item.kind != "categorical":
            assert (item.prompt, item.answer) == (prompts[item.kind], answers[item.kind])
    assert written != load_written(report.journal, train, seed=1)[0]
    assert {i.kind for i in load_written(report.journal, train, ["reasoning"])[0]} == {"reasoning"}

    again = write(train, tmp_path)
    assert len(server.requests) == server.paid == 12
    assert again == report


def test_the_request_tells_the_label_and_shows_the_image_small(serve, train, tmp_path):
    server = serve(always(GOOD))
    write(train.select(train.ids[:1]), tmp_path, image_side=64)
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["max_completion_tokens"]) == ("gpt-test", 100)
    assert "temperature" not in request
    picture, text = request["messages"][0]["content"]
    assert "evokes awe." in text["text"]
    with urllib.request.urlopen(picture["image_url"]["url"]) as data:
        shown = Image.open(data)
        assert (shown.format, shown.size, dict(shown.getexif())) == ("JPEG", (64, 27), {})


def test_a_bad_answer_is_asked_for_again_with_the_reason_and_then_set_aside(serve, train, tmp_path):
    def script(number, request):
        text = request["messages"][0]["content"][1]["text"]
        return completion(GOOD if "earlier answer" in text and "sadness" in text else LEAKING)

    server = serve(script)
    report = write(train, tmp_path)
    assert report.outcomes == {
        "written": 0,
        "rewritten": 6,
        "set aside: names the emotion": 6,
    }
    assert report.rejected == {"rejected: names the emotion": 6 + 6 * 3}
    assert server.paid == report.answers == 6 * 2 + 6 * 3
    assert write(train, tmp_path) == report
    assert server.paid == report.answers
    _, counts = load_written(report.journal, train)
    assert (counts["conversation"], counts["leaked"], counts["not written"]) == (6, 12, 0)
    table = report.table()["share"]
    assert table["images", "rewritten"].startswith("50.0 %")
    assert table["answers", "rejected: names the emotion"].startswith("80.0 %")


def test_faults_are_tried_again_and_what_may_have_been_paid_for_is_counted(serve, train, tmp_path):
    faults = {
        1: (429, {"Retry-After": "0.7"}, "{}"),
        3: (500, {}, "not now"),
        5: "cut",
        7: "drop",
        9: (503, {}, "{}"),
    }

    gone = threading.Event()

    def script(number, request):
        if number == 11:
            gone.wait(60)
        return faults.get(number, completion(GOOD))

    server = serve(script)
    report = write(train, tmp_path, concurrency=1, timeout=2)
    gone.set()
    server.settle()
    assert report.outcomes["written"] == 12
    assert not report.failures
    assert server.times[2] - server.times[1] >= 0.7
    assert report.lost == 3  # cut, drop, and the one too slow
    assert server.paid == 12 + report.lost
    most = max(FAST.input_tokens, USAGE["prompt_tokens"])
    assert report.tokens_in == 12 * USAGE["prompt_tokens"] + report.lost * most
    assert "3 answers were lost" in str(report)


def test_what_is_no_chat_completion_is_left_for_the_next_run(serve, train, tmp_path):
    bodies = {1: "{not JSON", 3: '{"choices": []}', 5: '{"error": "overloaded"}'}

    def script(number, request):
        return (200, {}, bodies[number]) if number in bodies else completion(GOOD)

    server = serve(script)
    report = write(train, tmp_path, concurrency=1)
    assert report.outcomes["written"] == 9
    assert sum(report.failures.values()) == report.lost == 3
    assert write(train, tmp_path).outcomes["written"] == 12
    assert len(server.requests) == 15


def test_a_server_that_is_not_there_ends_the_run_and_costs_nothing(serve, train, tmp_path):
    serve(always(GOOD)).http.server_close()
    report = write(train, tmp_path, concurrency=1, max_retries=0)
    assert "in a row failed" in report.stopped
    assert (report.answers, report.lost, report.tokens_in) == (0, 0, 0)


def test_a_refused_key_ends_the_run_at_once(serve, train, tmp_path):
    server = serve(lambda number, request: (401, {}, '{"error": {"message": "no such key"}}'))
    report = write(train, tmp_path)
    assert "no such key" in report.stopped
    assert len(server.requests) == 1


def test_one_image_that_the_server_refuses_does_not_end_the_run(serve, train, tmp_path):
    server = serve(lambda n, _: (400, {}, '{"error": "policy"}') if n == 2 else completion(GOOD))
    report = write(train, tmp_path)
    assert report.outcomes["written"] == 11
    assert [*report.failures.values()] == [1]
    assert server.paid == 11


def test_requests_keep_the_rate_and_the_number_under_way(serve, train, tmp_path):
    def script(number, request):
        time.sleep(0.15)
        return completion(GOOD)

    server = serve(script)
    write(train, tmp_path, concurrency=3, requests_per_minute=60 / 0.04)
    assert server.most == 3
    gaps = [b - a for a, b in zip(server.times[1:], server.times[2:], strict=False)]
    assert sum(gaps) >= 0.03 * len(gaps)


def test_usage_that_is_not_told_is_estimated(serve, train, tmp_path):
    serve(always(GOOD, usage=None))
    report = write(train, tmp_path)
    assert report.estimated == 12
    assert report.tokens_in == 12 * FAST.input_tokens
    assert "told no usage" in str(report)


# ------------------------------------------------------------------------------------------ budgets


def test_a_budget_of_images_mixes_the_classes_and_is_resumed(serve, train, tmp_path):
    server = serve(always(GOOD))
    report = write(train, tmp_path, max_images=5)
    assert (server.paid, report.outcomes["written"]) == (5, 5)
    assert "5 images" in report.stopped
    written, _ = load_written(report.journal, train, ["reasoning"])
    assert len({item.image_id.split("/")[1] for item in written}) == 2
    assert write(train, tmp_path, max_images=5).outcomes["written"] == 5
    assert server.paid == 5
    assert write(train, tmp_path).outcomes["written"] == 12
    assert server.paid == 12


@pytest.mark.parametrize(
    "budget",
    [{"max_tokens": 2500}, {"max_cost": 0.0025, "price_in": 1.0, "price_out": 1.0}],
    ids=["tokens", "money"],
)
def test_a_budget_is_never_exceeded(serve, train, tmp_path, budget):
    server = serve(always(GOOD))
    report = write(train, tmp_path, **budget)
    each = sum(USAGE.values())
    most = max(FAST.input_tokens, USAGE["prompt_tokens"]) + FAST.answer_tokens
    spent = report.tokens_in + report.tokens_out
    assert spent == server.paid * each
    assert spent <= 2500 < spent + most
    assert "may exceed the budget" in report.stopped


def test_the_first_answer_corrects_the_estimate_before_the_others_are_asked(serve, train, tmp_path):
    server = serve(always(GOOD, usage={"prompt_tokens": 9000, "completion_tokens": 60}))
    report = write(train, tmp_path, max_tokens=20_000)
    assert server.paid == 2
    assert report.tokens_in == 18_000


def test_tries_that_may_have_to_be_paid_for_count_against_the_budget(serve, train, tmp_path):
    server = serve(lambda number, request: "drop")
    each = FAST.input_tokens + FAST.answer_tokens
    report = write(train, tmp_path, max_tokens=2 * each + 1)
    assert server.paid == report.lost == 2
    assert "budget" in report.stopped


def test_a_budget_in_money_needs_prices():
    with pytest.raises(InputError, match="price"):
        replace(FAST, max_cost=1.0)
    for wrong in ({"concurrency": 0}, {"requests_per_minute": float("nan")}, {"model": " "}):
        with pytest.raises(InputError):
            replace(FAST, **wrong)


def test_an_estimate_asks_nothing_and_learns_from_the_journal(serve, train, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    prices = {"price_in": 2.0, "price_out": 8.0}
    settings = replace(FAST, requests_per_minute=6, **prices)
    plan = estimate(train, settings, tmp_path)
    assert (plan.left, plan.requests, plan.minutes) == (12, 12, 2.0)
    assert (plan.tokens_in, plan.tokens_out) == (12 * FAST.input_tokens, 1200)
    assert plan.cost == pytest.approx((plan.tokens_in * 2 + 1200 * 8) / 1e6)
    assert "85 + 170 a tile" in str(plan) and "characters" in str(plan)
    assert estimate(train, replace(settings, max_images=4), tmp_path).left == 4
    assert not list(tmp_path.iterdir())
    serve(always(GOOD))
    write(train, tmp_path, max_images=4)
    plan = estimate(train, settings, tmp_path)
    assert (plan.left, plan.tokens_in, plan.tokens_out) == (8, 8 * 400, 8 * 60)
    assert estimate(train, replace(settings, max_images=6), tmp_path).left == 2


# ------------------------------------------------------------------------------------------ journal


def test_after_a_torn_line_only_that_image_is_asked_again(serve, train, tmp_path):
    server = serve(always(GOOD))
    report = write(train, tmp_path)
    whole = report.journal.read_bytes()
    report.journal.write_bytes(whole[:-30])
    assert load_written(report.journal, train)[1]["not written"] == 2
    assert write(train, tmp_path).outcomes["written"] == 12
    assert load_written(report.journal, train)[1]["not written"] == 0
    assert server.paid == 13
    report.journal.write_bytes(whole[:20])  # killed while the first line was written
    assert write(train, tmp_path).outcomes["written"] == 12
    assert server.paid == 25


def test_an_answer_is_on_the_disk_before_anything_else_is_done_with_it(
    serve, train, tmp_path, monkeypatch
):
    server = serve(always(GOOD))
    synced = []

    def fsync(descriptor):
        synced.append(os.fstat(descriptor).st_size)

    def crash(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(writer.os, "fsync", fsync)
    monkeypatch.setattr(writer, "judge", crash)
    with pytest.raises(ZeroDivisionError):
        write(train, tmp_path)
    monkeypatch.undo()
    path = journal_path(tmp_path, FAST)
    assert synced[-1] == path.stat().st_size
    assert server.paid == path.read_text().count('"text"') == 1


def test_an_answer_that_cannot_be_kept_ends_the_run(serve, train, tmp_path, monkeypatch):
    server = serve(always(GOOD))
    report = write(train, tmp_path, max_images=2)

    def full(descriptor):
        raise OSError(28, "no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(writer.os, "fsync", full)
        write(train, tmp_path, concurrency=1)
    assert server.paid == 3
    assert load_written(report.journal, train)[1]["reasoning"] == 2
    assert write(train, tmp_path).outcomes["written"] == 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_after_a_kill_nothing_in_the_journal_is_paid_for_twice(serve, train, tmp_path):
    held = threading.Event()

    def script(number, request):
        if number >= 5 and not held.is_set():
            held.wait(20)
        return completion(GOOD)

    server = serve(script)
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=write, args=(train, tmp_path), kwargs={"concurrency": 2})
    process.start()
    while len(server.requests) < 7:
        assert process.is_alive()
        time.sleep(0.02)
    with pytest.raises(InputError, match="another process"):
        write(train, tmp_path)
    process.kill()
    process.join()
    held.set()
    under_way = 2
    report = write(train, tmp_path)
    assert report.outcomes["written"] == 12
    assert len(server.requests) == 12 + under_way


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_requests_under_way(serve, train, tmp_path, number):
    def script(n, request):
        if n == 3:
            os.kill(os.getpid(), number)
            time.sleep(0.3)
        return completion(GOOD)

    server = serve(script)
    before = signal.getsignal(number)
    report = write(train, tmp_path, concurrency=2)
    assert report.stopped == "interrupted"
    assert signal.getsignal(number) is before
    assert report.outcomes["written"] == server.paid == len(server.requests) < 12
    assert write(train, tmp_path).outcomes["written"] == server.paid == 12


def test_another_prompt_or_model_has_another_journal(monkeypatch, tmp_path):
    path = journal_path(tmp_path, FAST)
    assert path == journal_path(tmp_path, replace(FAST, concurrency=9, max_images=2))
    assert path != journal_path(tmp_path, replace(FAST, model="other/model"))
    assert path != journal_path(tmp_path, replace(FAST, image_side=99))
    monkeypatch.setattr(writer, "PROMPT", writer.PROMPT + " Be brief.")
    assert path != journal_path(tmp_path, FAST)


def test_answers_about_other_bytes_do_not_count(serve, root, tmp_path):
    shutil.copytree(root, tmp_path / "images")
    train = load_dataset(tmp_path / "images").split("train")
    server = serve(always(GOOD))
    report = write(train, tmp_path / "to")
    Image.new("RGB", (50, 50), "white").save(tmp_path / "images" / train.ids[0])
    changed = load_dataset(tmp_path / "images").split("train")
    assert load_written(report.journal, changed)[1]["reasoning"] == 11
    assert write(changed, tmp_path / "to").outcomes["written"] == 12
    assert server.paid == 13


def test_a_damaged_journal_is_told(serve, train, tmp_path):
    server = serve(always(GOOD))
    path = write(train, tmp_path).journal
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], b"{oops\n", *lines[4:]]))
    for use in (lambda: load_written(path, train), lambda: write(train, tmp_path)):
        with pytest.raises(InputError, match="line 5"):
            use()
    path.write_bytes(b"".join(lines))
    assert write(train, tmp_path).outcomes["written"] == server.paid == 12
    other = tmp_path / "metadata.csv"
    other.write_text("file\na\n")
    with pytest.raises(InputError, match="no journal"):
        load_written(other, train)
    with pytest.raises(FileNotFoundError):
        load_written(tmp_path / "none", train)


# ------------------------------------------------------------------------------------------ the key


@pytest.mark.parametrize("status", [200, 400, 401, 429])
def test_the_key_is_nowhere(serve, train, tmp_path, monkeypatch, capsys, caplog, status):
    caplog.set_level(logging.DEBUG)

    def script(number, request):
        assert request["key"] == f"Bearer {SECRET}"
        told = f"{'x' * 150} the key {SECRET} of {SECRET}"
        if status == 200:
            return completion(f"Key elements: {SEEN}\nReasoning: {WHY} {SECRET}")
        return status, {}, json.dumps({"error": {"message": told}})

    serve(script)
    with monkeypatch.context() as patch:
        patch.setattr(writer, "GIVE_UP", 2)
        report = write(train, tmp_path, max_retries=0)
    said = str(report) + repr(report) + caplog.text + "".join(capsys.readouterr())
    said += "".join(p.read_text("utf-8") for p in tmp_path.rglob("*") if p.is_file())
    if report.answers:
        said += str(load_written(report.journal, train))
    assert "[key]" in said
    assert SECRET not in said and SECRET[:10] not in said


def test_a_missing_or_broken_key_is_told_without_it(train, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="set OPENAI_API_KEY"):
        write(train, tmp_path)
    for key in ("sk-0123456789\u2026abc", "sk-0123456789\nabc"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(InputError) as error:
            write(train, tmp_path)
        assert key[:9] not in str(error.value)


def test_a_server_of_ones_own_needs_no_key(serve, train, tmp_path, monkeypatch):
    serve(always(GOOD))
    monkeypatch.delenv("OPENAI_API_KEY")
    assert write(train, tmp_path).outcomes["written"] == 12


# --------------------------------------------------------------------------------- import, command


def published(image, text=GOOD, **other):
    """An item as the published code writes it."""
    label, name = image.split("/")[1:]
    about = {"gpt_response": text, "img": name, "img_path": f"images/FI/{image}", "label": label}
    return about | other


def test_import_of_the_published_form(train, tmp_path):
    text = f"1. **Key elements** \n{SEEN}\n\n2. **Reasoning** \n{WHY}"
    items = [published(image, text) for image in train.ids[:8]]
    items += [published(train.ids[8], LEAKING), published(train.ids[9], "I cannot see images.")]
    items += [published("train/awe/stranger.png"), published(train.ids[10], label="anger")]
    items[0]["img_path"] = "D:\\data\\FI\\" + train.ids[0].replace("/", "\\")
    del items[1]["img_path"]
    path = tmp_path / "FI_annotations_train.json"
    path.write_text(json.dumps(items), "utf-8")
    journal, report = import_written(path, train, tmp_path)
    assert report.outcomes == {
        "written": 8,
        "rewritten": 0,
        "set aside: names the emotion": 1,
        "set aside: refused": 1,
    }
    assert report.unmatched == ("images/FI/train/awe/stranger.png", items[-1]["img_path"])
    assert "2 items fit no image" in str(report)
    written, counts = load_written(journal, train)
    assert (counts["reasoning"], counts["leaked"], counts["not written"]) == (8, 2, 6)
    assert {i.answer for i in written if i.kind == "reasoning"} == {WHY}
    assert import_written(path, train, tmp_path) == (journal, report)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"image": "a.jpg"}]'])
def test_import_of_another_form_is_told(train, tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"other\.json"):
        import_written(path, train, tmp_path)


def test_the_command(serve, root, train, tmp_path, capsys):
    server = serve(always(GOOD))
    common = ["write-instructions", "--data", str(root), "--runs", str(tmp_path / "runs")]
    ask = [*common, "--model", "gpt-test", "--rpm", "60000", "--max-images", "5"]
    assert cli.main([*ask, "--dry-run", "--price-in", "2", "--price-out", "8"]) == 0
    assert "5 of 12 images left" in capsys.readouterr().out
    assert not server.requests
    assert cli.main(ask) == 0
    assert "5 of 12 images finished" in capsys.readouterr().out
    assert server.paid == 5
    assert len([*(tmp_path / "runs").rglob("instructions/gpt-test-*.jsonl")]) == 1
    assert cli.main([*ask, "--max-cost", "1"]) == 2
    assert "prices" in capsys.readouterr().err
    path = tmp_path / "published.json"
    path.write_text(json.dumps([published(train.ids[0])]))
    assert cli.main([*common, "--import", str(path), "--out", str(tmp_path)]) == 0
    assert "1 of 12 images finished" in capsys.readouterr().out


# --------------------------------------------------------------------------------- a real server


@pytest.fixture(scope="module")
def tiny_vlm():
    """The address of `transformers serve` with TinyVLM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "transformers.cli.transformers serve data/tiny_vlm --device cpu --host 127.0.0.1"
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split(), "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    drain = threading.Thread(target=process.stdout.read, daemon=True)
    drain.start()
    end = time.monotonic() + 300
    while True:
        assert process.poll() is None and time.monotonic() < end, "the server has not started"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
            break
        except OSError:
            time.sleep(0.5)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


TINY = replace(FAST, model="data/tiny_vlm", timeout=60, image_side=96, attempts=2)


@pytest.mark.slow
def test_a_real_server(tiny_vlm, train, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"{tiny_vlm}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    report = write_with_model(train, TINY, tmp_path, progress=False)
    assert sum(report.outcomes.values()) == 12
    assert not report.failures and not report.stopped and not report.lost and not report.estimated
    assert report.tokens_in > 12 * 50 and report.tokens_out > 0
    assert any(what.startswith("set aside") for what in report.outcomes), "TinyVLM passed it all"
    again = write_with_model(train, TINY, tmp_path, progress=False)
    assert again == report


@pytest.mark.slow
def test_a_real_server_behind_a_proxy_that_breaks_things(tiny_vlm, serve, train, tmp_path):
    """Each fault once; all else is passed on to the server and back."""
    faults = {
        1: (429, {"Retry-After": "1"}, "{}"),
        2: (500, {}, "{}"),
        4: "cut",
        6: "drop",
        8: (502, {"Content-Type": "text/html"}, "<html>bad gateway</html>"),
        10: (200, {}, "{not JSON"),
    }

    def proxy(number, request):
        if number in faults:
            return faults[number]
        told = {k: v for k, v in request.items() if k not in ("path", "key")}
        kind = {"Content-Type": "application/json"}
        url = tiny_vlm + request["path"]
        forward = urllib.request.Request(url, json.dumps(told).encode(), kind)
        with urllib.request.urlopen(forward) as reply:
            if number == 12:
                time.sleep(TINY.timeout / 6 + 1)
            return reply.status, {}, reply.read().decode()

    server = serve(proxy)
    settings = replace(TINY, timeout=TINY.timeout / 6)
    first = write_with_model(train, settings, tmp_path, progress=False)
    assert sum(first.failures.values()) == 1, "the answer that is no chat completion"
    assert first.lost == 4, "cut, drop, no chat completion, too slow"
    report = write_with_model(train, settings, tmp_path, progress=False)
    assert sum(report.outcomes.values()) == 12 and not report.failures
    server.settle()
    assert server.paid == report.answers + report.lost
