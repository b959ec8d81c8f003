import multiprocessing
from collections import Counter
from functools import cache

import pandas as pd
import pytest
from PIL import Image

from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.folders import list_files
from emokd_utils.scan import scan
from emokd_utils.world import files, painting, scenes
from emokd_utils.world.describe import describe_scene

SMALL = {"train": 40, "val": 16, "test": 24}


@cache
def made():
    return [scenes.make_scene("train", number) for number in range(400)]


def test_four_objects_for_each_emotion_and_sixteen_neutral_all_drawn():
    objects = scenes.scene_objects()
    assert Counter(o.emotion for o in objects) == {**dict.fromkeys(MIKELS.labels, 4), "neutral": 16}
    drawings = {path.stem.replace("_", " ") for path in (scenes.HOME / "objects").glob("*.svg")}
    assert drawings == {o.noun for o in objects} == set(scenes.sprites())


def test_a_scene_depends_only_on_seed_split_and_number():
    scene = made()[17]
    assert scene.image.tobytes() == scenes.make_scene("train", 17).image.tobytes()
    others = scenes.make_scene("train", 17, seed=1), scenes.make_scene("test", 17)
    unlabelled = (scenes.make_unlabelled_scene(17, varied=varied) for varied in (True, False))
    assert len({s.image.tobytes() for s in (scene, *others, *unlabelled)}) == 5


def test_scenes_are_what_the_datasheet_says():
    feelings = {o.noun: o.emotion for o in scenes.scene_objects()}
    looks = {*MIKELS.labels, *painting.TEXTURES, *painting.LIGHTS, *painting.WEATHERS}
    for scene in made():
        evoked = [feelings[noun] for noun in scene.objects if feelings[noun] != "neutral"]
        assert evoked == ([] if scene.cue == "atmosphere" else [scene.emotion])
        assert (scene.image.size, scene.image.mode) == ((112, 112), "RGB")
        for x, y, width, height in scene.boxes:
            assert min(x, y) >= 0 and max(x + width, y + height) <= 112
        assert not looks & set(scene.caption.replace(",", "").split())
    assert Counter(s.cue for s in made()) == {"content": 160, "atmosphere": 160, "both": 80}
    assert 8 <= sum(s.label != s.emotion for s in made()) <= 34  # of 400; outside with p < 0.002
    listed = scenes.caption(["coffin", "oak", "cup"], "room")
    assert listed == "a coffin, an oak and a cup in a room"


def test_written_in_the_common_layout_once(tmp_path):
    files.ensure_scenes(tmp_path, sizes=SMALL)
    files.ensure_scenes(tmp_path, sizes=SMALL, say=None)  # is there, and says nothing
    assert {p.name for p in tmp_path.iterdir()} == {*SMALL, "metadata.csv", "scenes.json"}
    table = pd.read_csv(tmp_path / "metadata.csv")
    parts = table["file"].str.split("/", expand=True)
    assert parts[0].value_counts().to_dict() == SMALL
    assert ((parts[1] != table["emotion"]) == table["label_noise"]).all()
    assert Image.open(tmp_path / table["file"][0]).tobytes() == made()[0].image.tobytes()
    with pytest.raises(InputError, match="another folder"):
        files.ensure_scenes(tmp_path, seed=1, sizes=SMALL)


@pytest.mark.slow
def test_several_processes_at_once_end_with_one_whole_set(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        states = pool.starmap(made_and_listed, [(tmp_path,)] * 3)
    assert states == [list_files(tmp_path).fingerprint] * 3  # none put a file there once more
    assert len(list(tmp_path.glob("*/*/*.png"))) == sum(SMALL.values())
    assert not list(tmp_path.glob(".making*"))


def made_and_listed(root):
    return list_files(files.ensure_scenes(root, seed=7, sizes=SMALL)).fingerprint


KINDS = {"light": "harsh", "texture": "cracks", "weather": "rain"}
LOOK = {"hue": 355.0, "saturation": 0.8, "brightness": 0.2, **KINDS}
WORDS = "dark, vivid red colours, harsh light, cracked, rainy"
EVERYDAY = f"The objects are everyday things. It is the look: {WORDS}."
SAD, ANGRY = scenes.objects_of("sadness")[0], scenes.objects_of("anger")[0]


@pytest.mark.parametrize(
    ("row", "conversation", "reasoning"),
    [
        ({"caption": " a dog on a sofa "}, "A dog on a sofa.", None),
        ({"caption": float("nan"), "objects": float("nan")}, None, None),
        ({"caption": "a coffin.", **LOOK}, f"A coffin. It looks like this: {WORDS}.", EVERYDAY),
        ({"objects": f"chair;{ANGRY.noun}", **LOOK}, None, EVERYDAY),
        ({"objects": f"{ANGRY.noun};{SAD.noun}", **LOOK}, None, f"The {SAD.noun} is {SAD.why}."),
    ],
)
def test_a_row_of_metadata_in_words(row, conversation, reasoning):
    assert describe_scene(pd.Series(row), "sadness") == (conversation, reasoning)


def test_scenes_as_drawn_here_are_the_published_data_set_and_changed_ones_another(
    tmp_path, monkeypatch
):
    files.ensure_scenes(tmp_path, sizes=SMALL)
    (tmp_path / "checksum.json").write_text('{"fingerprint": "0123456789abcdef"}')
    monkeypatch.setattr(files, "HOME", tmp_path)
    assert files.published_fingerprint(scan(tmp_path).images["pixels"]) == "0123456789abcdef"
    path = next(tmp_path.glob("train/*/*.png"))
    image = Image.open(path)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)
    assert files.published_fingerprint(scan(tmp_path).images["pixels"]) is None
