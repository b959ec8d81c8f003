from random import Random

import pandas as pd
import pytest

from emokd_utils.data import load_dataset
from emokd_utils.emotions import MIKELS, infer_label_set
from emokd_utils.errors import InputError
from emokd_utils.instructions import categorical_prompt, describe_look, leaks, write_instructions
from emokd_utils.settings import KINDS
from emokd_utils.world.corpus import WORDS, draw_turn
from emokd_utils.world.scenes import ensure_scenes, make_unlabelled_scene, scene_objects


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    ensure_scenes(root, sizes={"train": 80, "val": 16, "test": 16}, say=lambda _: None)
    return load_dataset(root).split("train")


def test_three_kinds_for_every_image(dataset):
    written, counts = write_instructions(dataset)
    assert counts["categorical"] == counts["conversation"] == len(dataset)
    assert counts["reasoning"] + counts["leaked"] == len(dataset)
    assert {i.kind for i in written} == set(KINDS)


def test_categorical_asks_with_the_class_list_and_answers_in_the_papers_form(dataset):
    written, _ = write_instructions(dataset, ["categorical"])
    for item in written:
        assert all(label in item.prompt for label in MIKELS.labels)
        assert item.answer == f"{{'emotion': '{item.image_id.split('/')[1]}'}}"


def test_no_other_kind_names_the_label(dataset):
    written, _ = write_instructions(dataset, ["conversation", "reasoning"])
    for item in written:
        assert not leaks(item.answer, item.image_id.split("/")[1], MIKELS), item


def test_the_same_seed_writes_the_same(dataset):
    assert write_instructions(dataset, seed=3) == write_instructions(dataset, seed=3)
    assert write_instructions(dataset, seed=3) != write_instructions(dataset, seed=4)


def test_a_caption_alone_makes_a_conversation_and_nothing_a_categorical(dataset):
    bare = dataset.table[["split", "label"]].assign(caption="a dog on a sofa")
    captioned = type(dataset)(dataset.root, dataset.label_set, bare, dataset.fingerprint)
    written, counts = write_instructions(captioned)
    assert counts["reasoning"] == 0
    assert {i.answer for i in written if i.kind == "conversation"} == {"A dog on a sofa."}
    alone = type(dataset)(
        dataset.root, dataset.label_set, bare[["split", "label"]], dataset.fingerprint
    )
    assert write_instructions(alone)[1]["conversation"] == 0


def test_unknown_kind_is_named(dataset):
    with pytest.raises(InputError, match="poetry"):
        write_instructions(dataset, ["poetry"])


@pytest.mark.parametrize(
    ("text", "label", "leaked"),
    [
        ("It is sad.", "sadness", True),
        ("The mood is one of sadness.", "sadness", True),
        ("Sadly, it rains.", "sadness", True),
        ("He sits on a saddle.", "sadness", False),
        ("An awesome view.", "awe", True),
        ("Fearful faces.", "fear", True),
        ("An exciting race.", "excitement", True),
        ("She is amused.", "amusement", True),
        ("A disgusting smell.", "disgust", True),
        ("People look angry.", "anger", True),
        ("A content cat.", "contentment", True),
        ("A coffin in a room.", "sadness", False),
        ("It is away from here.", "awe", False),
    ],
)
def test_leaks(text, label, leaked):
    assert leaks(text, label, MIKELS) == leaked


@pytest.mark.parametrize(
    ("text", "label", "leaked"),
    [
        ("There is Peace  of mind in it.", "peace_of_mind", True),
        ("A peace-of-mind offer.", "peace_of_mind", True),
        ("A piece of mind, and of peace.", "peace_of_mind", False),
        ("It shows bittersweet peace of minds.", "peace_of_mind", False),
        ("Man sieht Ärger.", "Ärger", True),
        ("Man sieht Ärgernis.", "Ärger", False),
    ],
)
def test_leaks_of_labels_that_are_no_single_plain_word(text, label, leaked):
    assert leaks(text, label, infer_label_set([label, "other"])) == leaked


def test_the_look_in_words():
    row = pd.Series(
        {
            "hue": 355.0,
            "saturation": 0.8,
            "brightness": 0.2,
            "light": "harsh",
            "texture": "cracks",
            "weather": "rain",
        }
    )
    assert describe_look(row) == "dark, vivid red colours, harsh light, cracked, rainy"


def test_pretraining_texts_never_tell_the_look_or_ask_what_the_image_evokes():
    rng = Random(0)
    looks = {word for words in WORDS.values() for word in words} - {"orange"}
    for k in range(300):
        scene = make_unlabelled_scene(k)
        turn = draw_turn(rng, scene)
        assert turn.prompt != categorical_prompt(MIKELS)
        if turn.image:
            said = turn.answer.lower()
            for item in scene_objects():
                said = said.replace(item.why, "")
            assert not looks & set(said.replace(".", "").replace(",", "").split()), turn
