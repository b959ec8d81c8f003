import csv
import json
import multiprocessing
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.world import scenes

SMALL = {"train": 40, "val": 16, "test": 24}


def quiet(_):
    pass


def test_four_objects_for_each_emotion_and_sixteen_neutral():
    counts = Counter(o.emotion for o in scenes.scene_objects())
    assert counts == {**dict.fromkeys(MIKELS.labels, 4), "neutral": 16}
    assert len({o.noun for o in scenes.scene_objects()}) == 48
    assert all(o.why for o in scenes.scene_objects())


def test_every_object_is_drawn_and_the_sheet_shows_each():
    drawn = {path.name for path in (scenes.HOME / "objects").glob("*.svg")}
    assert drawn == {o.file for o in scenes.scene_objects()}
    for noun, sprite in scenes._sprites().items():
        opaque = np.asarray(sprite)[..., 3] > 200
        assert opaque.mean() > 0.15, noun


def test_the_sheet_is_what_the_drawings_render_to():
    pytest.importorskip("resvg_py", reason="pip install -e .[dev] brings resvg-py")
    sheet = np.asarray(Image.open(scenes.HOME / "objects.png").convert("RGBA")).astype(int)
    fresh = np.asarray(scenes.render_sprites()).astype(int)
    assert np.abs(sheet - fresh).mean() < 1


def test_a_scene_depends_only_on_seed_split_and_number():
    one = scenes.make_scene("train", 17)
    scenes.make_scene("train", 3)
    again = scenes.make_scene("train", 17)
    assert one.image.tobytes() == again.image.tobytes()
    assert one.boxes == again.boxes
    assert one.image.tobytes() != scenes.make_scene("train", 17, seed=1).image.tobytes()
    assert one.image.tobytes() != scenes.make_scene("test", 17).image.tobytes()


def test_things_of_a_kind_are_met_in_many_forms():
    """The same noun in labelled scenes differs in colour, size and shape; unvaried it does not."""
    rng = np.random.default_rng(0)
    forms = [scenes._vary(rng, "teacup", 50, scenes.LABELLED_FORMS) for _ in range(40)]
    colours = np.array(
        [np.asarray(f.convert("RGB"))[np.asarray(f)[..., 3] > 200].mean(0) for f in forms]
    )
    assert (colours.std(0) > 8).all()
    assert max(f.width for f in forms) > 1.15 * min(f.width for f in forms)
    plain = [scenes.make_unlabelled_scene(5, varied=False).image.tobytes() for _ in range(2)]
    assert plain[0] == plain[1]
    assert plain[0] != scenes.make_unlabelled_scene(5).image.tobytes()


@pytest.mark.parametrize("number", range(0, 120, 7))
def test_only_the_cue_carries_the_emotion(number):
    scene = scenes.make_scene("val", number)
    feelings = {o.noun: o.emotion for o in scenes.scene_objects()}
    evoked = [feelings[n] for n in scene.objects if feelings[n] != "neutral"]
    assert evoked == ([] if scene.cue == "atmosphere" else [scene.emotion])
    assert 1 <= len(scene.objects) <= 3
    assert scene.image.size == (112, 112)
    assert scene.image.mode == "RGB"
    for x, y, width, height in scene.boxes:
        assert 0 <= x
        assert 0 <= y
        assert x + width <= 112
        assert y + height <= 112


def test_proportions_of_cues_emotions_and_noise():
    made = [scenes.make_scene("train", k) for k in range(800)]
    assert Counter(s.cue for s in made) == {"content": 320, "atmosphere": 320, "both": 160}
    assert set(Counter(s.emotion for s in made).values()) == {100}
    noisy = sum(s.label != s.emotion for s in made)
    assert 20 <= noisy <= 62  # 5 % of 800; outside with p < 0.002


def test_atmosphere_alone_names_the_emotion_in_about_four_of_five():
    """Likeliest mood under the distributions that the atmospheres are drawn from."""
    rng = np.random.default_rng(0)
    right, count = 0, 1600
    for k in range(count):
        emotion = MIKELS.labels[k % 8]
        look = scenes.draw_atmosphere(rng, emotion)
        right += max(MIKELS.labels, key=lambda e: _log_likelihood(look, scenes.MOODS[e])) == emotion
    assert 0.78 <= 0.95 * right / count <= 0.88  # 0.95: the share of labels that noise leaves


def _log_likelihood(look, mood):
    def gauss(value, mean, deviation):
        deviation *= scenes.LABELLED.spread
        return -0.5 * ((value - mean) / deviation) ** 2 - np.log(deviation)

    def word(value, own, every):
        favour = scenes.LABELLED.favour
        share = (1 - favour) / len(every)
        return np.log(share + (favour / len(own) if value in own else 0))

    turn = (look.hue - mood.hue[0] + 180) % 360 - 180
    return (
        gauss(turn, 0, mood.hue[1])
        + gauss(look.saturation, *mood.saturation)
        + gauss(look.brightness, *mood.brightness)
        + word(look.texture, mood.textures, scenes.TEXTURES)
        + word(look.light, mood.lights, scenes.LIGHTS)
        + word(look.weather, mood.weathers, scenes.WEATHERS)
    )


def test_the_caption_names_objects_and_setting_and_never_the_look():
    scene = scenes.make_scene("train", 2)
    assert all(noun in scene.caption for noun in scene.objects)
    words = set(scene.caption.replace(",", "").split())
    assert not words & {*MIKELS.labels, *scenes.TEXTURES, *scenes.LIGHTS, *scenes.WEATHERS}


def test_written_in_the_common_layout(tmp_path):
    scenes.ensure_scenes(tmp_path, sizes=SMALL, say=quiet)
    with (tmp_path / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(SMALL.values())
    for row in rows:
        split, label, _ = row["file"].split("/")
        assert (tmp_path / row["file"]).is_file()
        assert split in SMALL
        assert (label != row["emotion"]) == (row["label_noise"] == "True")
    assert {p.name for p in tmp_path.iterdir()} == {*SMALL, "metadata.csv", "scenes.json"}


def test_present_scenes_are_left_alone_and_others_are_refused(tmp_path):
    scenes.ensure_scenes(tmp_path, sizes=SMALL, say=quiet)
    before = (tmp_path / "metadata.csv").stat().st_mtime_ns
    scenes.ensure_scenes(tmp_path, sizes=SMALL, say=quiet)
    assert (tmp_path / "metadata.csv").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="another folder"):
        scenes.ensure_scenes(tmp_path, seed=1, sizes=SMALL, say=quiet)


@pytest.mark.slow
def test_several_processes_at_once_end_with_one_whole_set(tmp_path):
    context = multiprocessing.get_context("spawn")
    jobs = [
        context.Process(target=scenes.ensure_scenes, args=(tmp_path, 7, SMALL, quiet))
        for _ in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert len(list(tmp_path.glob("*/*/*.png"))) == sum(SMALL.values())
    assert not list(tmp_path.glob(".making-*"))


def test_a_changed_pixel_is_told(tmp_path):
    known = json.loads((scenes.HOME / "checksum.json").read_text())
    scenes.ensure_scenes(tmp_path, sizes=SMALL, say=quiet)
    good, sentence = scenes.check_scenes(tmp_path)
    assert not good
    assert known["pillow"] in sentence
