"""Instructions: what is asked and answered, what is set aside, what of a batch is learnt."""

import json

import pytest

from emokd_utils.data import ImageDataset
from emokd_utils.emotions import MIKELS, infer_label_set
from emokd_utils.files import checksum
from emokd_utils.instructions import (
    IGNORED,
    AnswerCollator,
    leaks,
    read_instructions,
    trained_text,
    write_instructions,
)


@pytest.fixture(scope="module")
def dataset(scenes) -> ImageDataset:
    """Four images to train on, two of which are led by content."""
    led = scenes.split("train").table["cue"] == "content"
    return scenes.select([*led.index[led][:2], *led.index[~led][:2]])


def told(row, label):
    return f"This is {row.name[-9:]}", None if row["cue"] == "content" else f"It is {label}."


def answers(written, kind):
    return {item.image_id: item.answer for item in written if item.kind == kind}


def test_a_label_makes_a_categorical_instruction(dataset):
    written, counts = write_instructions(dataset)
    kinds = {"categorical": 4, "conversation": 0, "reasoning": 0}
    assert counts == kinds | {"leaked": 0, "not written": 8}
    for item in written:
        assert all(label in item.prompt for label in dataset.label_set)
        assert item.answer == f"{{'emotion': '{item.image_id.split('/')[1]}'}}"


def test_what_is_described_is_written_unless_it_leaks(dataset):
    written, counts = write_instructions(dataset, ["conversation", "reasoning"], describe=told)
    told_of = answers(written, "conversation")
    assert told_of == {image: f"This is {image[-9:]}" for image in dataset.ids}
    assert counts == {"conversation": 4, "reasoning": 0, "leaked": 2, "not written": 2}


def test_the_seed_alone_decides_the_order(dataset):
    first, again, other = (write_instructions(dataset, seed=seed)[0] for seed in (3, 3, 4))
    assert again == first != other and sorted(map(repr, other)) == sorted(map(repr, first))


@pytest.mark.parametrize(
    ("text", "label", "leaked"),
    [
        ("Sadly, it rains.", "sadness", True),
        ("An awesome view.", "awe", True),
        ("It is away from here.", "awe", False),
        ("A content cat.", "contentment", True),
        ("There is Peace  of mind in it.", "peace_of_mind", True),
        ("A piece of mind, and of peace.", "peace_of_mind", False),
        ("Man sieht Ärgernis.", "Ärger", False),
    ],
)
def test_leaks(text, label, leaked):
    labels = MIKELS if label in MIKELS else infer_label_set([label, "other"])
    assert leaks(text, label, labels) == leaked


def test_a_journal_gives_the_first_answer_that_passes(dataset, tmp_path):
    lines = [{"format": "emokd-written-2"}]
    texts = {"conversation": "Two dogs.", "reasoning": "They play."}
    for image, wrong in zip(dataset.ids, ("too short", "names the emotion", ""), strict=False):
        digest = checksum(dataset.root / image)[:16]
        line = {"image": image, "label": image.split("/")[1], "sha256": digest, "in": 9, "out": 9}
        lines += [line | {"text": "...", "wrong": wrong} | ({} if wrong else texts)]
    lines += [lines[1] | {"wrong": ""} | texts, lines[3] | {"label": "awe", "image": "other"}]
    journal = tmp_path / "journal.jsonl"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"image": "train')
    written, counts = read_instructions(journal, dataset)
    assert answers(written, "reasoning") == {dataset.ids[i]: "They play." for i in (0, 2)}
    kinds = {"categorical": 4, "conversation": 2, "reasoning": 2}
    assert counts == kinds | {"leaked": 2, "not written": 2}


def test_only_the_answer_and_its_end_are_learnt(random_vlm, dataset):
    texts = [("What is it?", "a dog"), ("A longer question: what do you see?", "a lake and a tree")]
    examples = [
        {"image": dataset.open(image), "prompt": prompt, "answer": answer}
        for image, (prompt, answer) in zip(dataset.ids, texts, strict=False)
    ]
    batch = AnswerCollator(random_vlm.processor)(examples)
    tokenizer = random_vlm.processor.tokenizer
    end = tokenizer.decode([tokenizer.eos_token_id])
    assert trained_text(batch, tokenizer) == [answer + end for _, answer in texts]
    assert {len(batch[name]) for name in ("input_ids", "attention_mask", "labels")} == {2}
    padding = batch["attention_mask"] == 0
    assert padding.any() and (batch["labels"][padding] == IGNORED).all()
