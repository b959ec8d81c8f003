import csv
import json
import multiprocessing
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.world import files, painting, scenes
from emokd_utils.world.describe import describe_scene

SMALL = {"train": 40, "val": 16, "test": 24}


@cache
def made(count):
    """Labelled scenes, which several tests look at."""
    return [scenes.make_scene("train", number) for number in range(count)]


def test_four_objects_for_each_emotion_and_sixteen_neutral_all_drawn():
    objects = scenes.scene_objects()
    assert Counter(o.emotion for o in objects) == {**dict.fromkeys(MIKELS.labels, 4), "neutral": 16}
    assert all(o.why for o in objects)
    drawings = {path.stem.replace("_", " ") for path in (scenes.HOME / "objects").glob("*.svg")}
    assert drawings == {o.noun for o in objects} == set(scenes.sprites())
    for noun, sprite in scenes.sprites().items():
        assert (np.asarray(sprite)[..., 3] > 200).mean() > 0.15, noun


def test_the_sheet_is_what_the_drawings_render_to():
    pytest.importorskip("resvg_py", reason="pip install -e .[dev] brings resvg-py")
    sheet = np.asarray(Image.open(scenes.HOME / "objects.png").convert("RGBA")).astype(int)
    fresh = np.asarray(files.render_sprites()).astype(int)
    assert np.abs(sheet - fresh).mean() < 1


def test_a_scene_depends_only_on_seed_split_and_number():
    scene = made(40)[17]
    again = scenes.make_scene("train", 17)
    assert scene.image.tobytes() == again.image.tobytes()
    assert scene.boxes == again.boxes
    others = scenes.make_scene("train", 17, seed=1), scenes.make_scene("test", 17)
    assert len({s.image.tobytes() for s in (scene, *others)}) == 3


def test_things_of_a_kind_are_met_in_many_forms():
    boxes = [b for s in made(400) for n, b in zip(s.objects, s.boxes, strict=True) if n == "teacup"]
    assert np.std([width / height for _, _, width, height in boxes]) > 0.05
    varied, plain = (scenes.make_unlabelled_scene(5, varied=v).image for v in (True, False))
    assert varied.tobytes() != plain.tobytes()


def test_only_the_cue_carries_the_emotion():
    feelings = {o.noun: o.emotion for o in scenes.scene_objects()}
    for scene in made(400):
        evoked = [feelings[noun] for noun in scene.objects if feelings[noun] != "neutral"]
        assert evoked == ([] if scene.cue == "atmosphere" else [scene.emotion])
        assert 1 <= len(scene.objects) <= 3
        assert (scene.image.size, scene.image.mode) == ((112, 112), "RGB")
        for x, y, width, height in scene.boxes:
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= 112


def test_proportions_of_cues_emotions_and_noise():
    assert Counter(s.cue for s in made(400)) == {"content": 160, "atmosphere": 160, "both": 80}
    assert set(Counter(s.emotion for s in made(400)).values()) == {50}
    noisy = sum(s.label != s.emotion for s in made(400))
    assert 8 <= noisy <= 34  # 5 % of 400; outside with p < 0.002


def test_the_caption_names_objects_and_setting_and_never_the_look():
    assert scenes.caption(["apple"], "water") == "an apple by the water"
    assert (
        scenes.caption(["coffin", "oak", "cup"], "room") == "a coffin, an oak and a cup in a room"
    )
    looks = {*MIKELS.labels, *painting.TEXTURES, *painting.LIGHTS, *painting.WEATHERS}
    assert not any(looks & set(s.caption.replace(",", "").split()) for s in made(400))


def test_written_in_the_common_layout_once(tmp_path):
    files.ensure_scenes(tmp_path, sizes=SMALL)
    with (tmp_path / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(SMALL.values())
    for row in rows:
        split, label, _ = row["file"].split("/")
        assert (tmp_path / row["file"]).is_file()
        assert split in SMALL
        assert (label != row["emotion"]) == (row["label_noise"] == "True")
    assert {p.name for p in tmp_path.iterdir()} == {*SMALL, "metadata.csv", "scenes.json"}
    with Image.open(tmp_path / rows[0]["file"]) as image:
        assert image.tobytes() == made(40)[0].image.tobytes()
    before = (tmp_path / "metadata.csv").stat().st_mtime_ns
    files.ensure_scenes(tmp_path, sizes=SMALL)
    assert (tmp_path / "metadata.csv").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another folder"):
        files.ensure_scenes(tmp_path, seed=1, sizes=SMALL)
    good, sentence = files.check_scenes(tmp_path)  # 40 of 1,600 scenes
    assert not good
    assert json.loads((scenes.HOME / "checksum.json").read_text())["pillow"] in sentence


@pytest.mark.slow
def test_several_processes_at_once_end_with_one_whole_set(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert set(pool.starmap(files.ensure_scenes, [(tmp_path, 7, SMALL)] * 3)) == {tmp_path}
    assert len(list(tmp_path.glob("*/*/*.png"))) == sum(SMALL.values())
    assert not list(tmp_path.glob(".making-*"))


LOOK = {"hue": 355.0, "saturation": 0.8, "brightness": 0.2}
LOOK |= {"light": "harsh", "texture": "cracks", "weather": "rain"}
WORDS = "dark, vivid red colours, harsh light, cracked, rainy"
EVERYDAY = f"The objects are everyday things. It is the look: {WORDS}."


@pytest.mark.parametrize(
    ("row", "conversation", "reasoning"),
    [
        ({"caption": " a dog on a sofa "}, "A dog on a sofa.", None),
        ({"caption": float("nan"), "objects": float("nan")}, None, None),
        ({"caption": "a coffin.", **LOOK}, f"A coffin. It looks like this: {WORDS}.", EVERYDAY),
        ({"objects": "chair;ladle", **LOOK}, None, EVERYDAY),
        ({**LOOK, "hue": float("nan"), "objects": "chair"}, None, None),
    ],
)
def test_a_row_of_metadata_in_words(row, conversation, reasoning):
    assert describe_scene(pd.Series(row), "sadness") == (conversation, reasoning)


def test_an_evocative_object_is_the_reason_before_the_look():
    sad, angry = scenes.objects_of("sadness")[0], scenes.objects_of("anger")[0]
    row = pd.Series({"objects": f"{angry.noun};{sad.noun}", **LOOK})
    assert describe_scene(row, "sadness")[1] == f"The {sad.noun} is {sad.why}."
    assert describe_scene(row, "anger")[1] == f"The {angry.noun} is {angry.why}."
    assert describe_scene(row, "awe")[1] == EVERYDAY
