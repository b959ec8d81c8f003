"""Data sets: small made-up copies of each released form, and everything amiss in one."""

import json
import os
import shutil
from unittest.mock import Mock

import datasets as library
import pytest
from kept_run import picture

from emokd_utils.data import load_dataset
from emokd_utils.emotions import LABEL_SETS, MIKELS
from emokd_utils.errors import InputError
from emokd_utils.scale import convert as module
from emokd_utils.scale.convert import SOURCES, convert, describe, overview
from emokd_utils.scan import scan


def found(report, kind):
    return report.problems["id"][report.problems["kind"] == kind].tolist()


def detail(report, name):
    return report.problems["detail"][report.problems["id"] == name].item()


def written(out):
    return sorted(file.relative_to(out).as_posix() for file in out.glob("*/*/*"))


def sources(out):
    """What the release calls the images -> (split, class)."""
    lines = (out / "metadata.csv").read_text("utf-8").splitlines()[1:]
    pairs = (line.split(",", 1) for line in lines)
    return {name: tuple(file.split("/")[:2]) for file, name in pairs}


def test_each_entry_is_complete_and_its_figures_add_up():
    assert [*SOURCES] == "fi emoset emotion6 flickr instagram abstract artphoto oasis".split()
    for name, source in SOURCES.items():
        for sizes in filter(None, (source.per_class, source.per_split)):
            assert sum(sizes.values()) == source.images
        assert set(source.per_class) <= set(LABEL_SETS[source.label_set])
        assert source.note in describe(name) and f"\n{name} " in overview()
    with pytest.raises(InputError, match="'nothing': choose one of fi"):
        describe("nothing")


FLICKR = "http://farm6.staticflickr.com/5515/"


@pytest.fixture
def fi(tmp_path):
    """Two classes of 20 images, and one image for everything that may be amiss."""
    root = tmp_path / "fi"
    votes = [(emotion, f"{emotion}{n:02d}", 1, 4) for emotion in ("fear", "awe") for n in range(20)]
    votes += [("fear", "tied", 2, 2), ("fear", "against", 3, 2), ("fear", "gone", 0, 5)]
    votes += [("fear", "twice", 0, 3), ("fear", "both", 1, 4), ("fear", "equal", 1, 4)]
    again = [("fear", "twice", 3, 0), ("awe", "both", 2, 3)]
    again += [("awe", "equal", 1, 4), ("awe", "odd", "few", 3)]
    for emotion, name, *_ in [*votes, ("fear", "extra")]:
        if name not in ("gone", "twice"):
            picture(root / "images" / emotion / f"{name}.jpg")
    for file, lines in {"fear_1st_1000.csv": votes, "awe_2nd_1000.csv": again}.items():
        rows = [f"{emotion},{FLICKR}{name}.jpg,{no},{yes}\n" for emotion, name, no, yes in lines]
        (root / file).write_text("".join(rows))
    (root / "README.txt").write_text("Lists of addresses, with votes, of many images, on Flickr\n")
    return root


def test_fi_votes_are_resolved_and_all_else_is_listed(fi, tmp_path):
    report = convert("fi", fi, tmp_path / "deep" / "out", seed=3)
    assert found(report, "tie") == [f"{FLICKR}{name}.jpg" for name in ("equal", "tied", "twice")]
    assert detail(report, f"{FLICKR}equal.jpg") == "awe 4, fear 4"
    assert found(report, "no class") == [f"{FLICKR}against.jpg"]
    assert found(report, "no file") == [f"{FLICKR}gone.jpg"]
    assert found(report, "odd row") == ["awe_2nd_1000.csv, line 4"]
    assert found(report, "unlisted") == ["images/fear/extra.jpg"]
    places = sources(report.root)
    assert places[f"{FLICKR}both.jpg"][1] == "fear", "four for fear, three for awe"
    assert len(places) == 41 and report.listed == 47
    counts = report.counts.loc[:, ["awe", "fear"]].to_dict("list")
    assert counts == {"awe": [16, 1, 3], "fear": [17, 1, 3]}
    assert "41 of 47 listed images, split drawn with seed 3" in report.text()
    text = (report.root / "source.json").read_text("utf-8")
    assert json.loads(text)["problems"] == report.problems.to_dict("records")
    assert str(tmp_path) not in text and load_dataset(report.root).label_set is MIKELS


@pytest.fixture
def emoset(tmp_path):
    root = tmp_path / "EmoSet-118K"
    entries = {"train": [], "val": [], "test": []}
    for number, emotion in enumerate(MIKELS):
        for split, count in (("train", 3), ("val", 1), ("test", 2)):
            for k in range(count):
                image = f"image/{emotion}/{emotion}_{len(split)}{k:04d}.jpg"
                picture(root / image)
                entry = [emotion, "its id", image, "note.json"]
                entries[split].append(entry if number % 2 else [emotion, image, "note.json"])
    return root, entries


def save(root, entries):
    for split, rows in entries.items():
        (root / f"{split}.json").write_text(json.dumps(rows))


def test_emoset_keeps_its_split_unless_it_is_not_whole(emoset, tmp_path):
    root, entries = emoset
    save(root, entries)
    report = convert("emoset", root, tmp_path / "out")
    assert report.split == "as released" and report.problems.empty
    assert report.counts.sum(axis=1).to_dict() == {"train": 24, "val": 8, "test": 16}
    places = sources(tmp_path / "out")
    for split, rows in entries.items():
        assert all(places[row[-2]] == (split, row[0]) for row in rows)
    assert "test: 16 where 17,716 are published (-99.9%)" in report.text()
    (root / "test.json").unlink()
    report = convert("emoset", root, tmp_path / "part")
    assert report.split == "drawn with seed 0" and report.counts.to_numpy().sum() == 32
    assert len(found(report, "unlisted")) == 16


def test_duplicates_across_splits_and_under_other_labels(emoset, tmp_path):
    root, entries = emoset
    copies = {"amusement/copy": 0, "fear/other": 3, "contentment/near": 6}
    copies = {f"image/{name}.jpg": entries["train"][k][-2] for name, k in copies.items()}
    for copy, image in copies.items():
        shutil.copy(root / image, root / copy)
    copied, other, near = copies
    entries["test"] += [["amusement", copied, ""], entries["val"][1]]  # the latter is listed twice
    entries["val"].append(["fear", other, ""])
    entries["train"].append(["contentment", near, ""])
    save(root, entries)
    report = convert("emoset", root, tmp_path / "out")
    across = {copied, entries["val"][1][-2]}
    assert set(found(report, "duplicate across splits")) == across
    assert set(found(report, "conflict")) == {copies[other], other}
    assert len(found(report, "duplicate")) == 1
    assert report.counts.to_numpy().sum() == 50


def test_names_in_lists_lead_nowhere_else(emoset, tmp_path):
    root, entries = emoset
    names = (picture(tmp_path / "secret.jpg"), "../secret.jpg", "C:\\secret.jpg", "a\0.jpg")
    entries["train"] += [["fear", str(name), "note.json"] for name in names]
    entries["train"] += [["telepathy", entries["val"][0][-2]], "fear", []]
    (root / "image" / "awe" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    entries["train"].append(["awe", "image/awe/link.jpg", "note.json"])
    save(root, entries)
    report = convert("emoset", root, tmp_path / "out")
    assert report.counts.to_numpy().sum() == 48
    assert found(report, "outside") == ["image/awe/link.jpg"]
    assert len(found(report, "no file") + found(report, "odd row")) == 6
    assert found(report, "no class") == [entries["val"][0][-2]]
    assert not list(tmp_path.glob("out/*/*/*secret*"))


def test_oasis_mean_valences_become_classes(tmp_path):
    valences = {f"Car crash {n}": "1.852941176" for n in range(20)}
    valences |= {f"Beach {n}": "6.366336634" for n in range(20)}
    valences |= {"Bored pose 1": "3.6", "Bark 1": "3.600001", "Acorns 1": "5.199", "Cheer 1": "5.2"}
    for theme in valences:
        picture(tmp_path / "oasis" / "Images" / f"{theme}.jpg")
    valences |= {"Gone 1": "2", "Odd 1": "0.5"}
    lines = [",Theme,Category,Valence_mean,Valence_SD"]
    lines += [f"I1,{theme},Object,{valence},1.1" for theme, valence in valences.items()]
    (tmp_path / "oasis" / "OASIS.csv").write_text("\n".join([*lines, "I47,Short 1,Object"]))
    report = convert("oasis", tmp_path / "oasis", tmp_path / "out")
    assert found(report, "no class") == ["Acorns 1", "Bark 1", "Odd 1"]
    assert detail(report, "Acorns 1").startswith("mean 5.199")
    assert found(report, "no file") + found(report, "odd row") == ["Gone 1", "OASIS.csv, line 48"]
    places = sources(tmp_path / "out")
    assert places["Bored pose 1"][1] == "negative" and places["Cheer 1"][1] == "positive"
    assert report.counts.to_numpy().tolist() == [[13, 13], [3, 3], [5, 5]]


@pytest.mark.parametrize(
    "name, form, encoding",
    [
        ("flickr", "ID\tnum_of_positive\tneutral\tnegative\tGl\xfcck", "cp1252"),
        ("instagram", '"Image ID";"Positive";"Neutral";"Negative"', "utf-8-sig"),
        ("emotion6", "[image_filename]\t[prob. joy]\t[neutral]\t[prob. fear]\t[arousal]", "ascii"),
    ],
)
def test_lists_of_votes(tmp_path, name, form, encoding):
    separator = ";" if ";" in form else "\t"
    votes = {f"p{k}": (3, 0, 0) for k in range(5)} | {f"n{k}": (1, 0, 2) for k in range(5)}
    votes |= {"split": (1, 1, 1), "dull": (1, 2, 0), "gone": (0, 0, 3), "odd": (-1, 0, 1)}
    for key in votes.keys() - {"gone"}:
        picture(tmp_path / "source" / "fetched" / f"{key}.png")
    for batch in range(2):
        rows = [separator.join(map(str, (k, *v))) for k, v in list(votes.items())[batch::2]]
        lines = "\n".join([form, *rows, "", ""])
        (tmp_path / "source" / f"batch{batch}.txt").write_bytes(lines.encode(encoding))
    report = convert(name, tmp_path / "source", tmp_path / "out")
    liked = "joy" if name == "emotion6" else "positive"
    assert report.counts[liked].sum() == 5 and report.counts.to_numpy().sum() == 10
    kinds = [found(report, kind) for kind in ("tie", "no class", "no file", "odd row")]
    assert kinds == [["split"], ["dull"], ["gone"], ["batch1.txt, line 8"]]
    assert detail(report, "dull") == f"{liked} 1, neutral 2" and report.listed == 14


@pytest.mark.parametrize("name, form", [("artphoto", "{}_{}.jpg"), ("fi", "set/{}/{}.jpg")])
def test_classes_named_by_files_or_by_folders_further_down(tmp_path, name, form):
    for emotion in ("amusement", "sad", "boredom"):
        for number in range(4):
            picture(tmp_path / "source" / form.format(emotion, number))
    report = convert(name, tmp_path / "source", tmp_path / "out")
    assert report.counts[["amusement", "sadness"]].sum().tolist() == [4, 4]
    assert found(report, "no class") == [form.format("boredom", number) for number in range(4)]


@pytest.fixture
def folders(tmp_path):
    for label in ("happy", "Sadness", "angry"):
        for number in range(20):
            picture(tmp_path / "photos" / label / f"{number:02d}.png")
    return tmp_path / "photos"


def test_imagefolder_with_other_spellings(folders, tmp_path):
    for name in ("happiness/00.png", "happy/deeper/x.png", "top.png"):
        picture(folders / name)
    picture(folders / "angry" / "@eaDir" / "00.png")
    (folders / "angry" / "Thumbs.db").write_bytes(b"")
    report = convert("imagefolder", folders, tmp_path / "out")
    assert "2 passed over: put there by a system" in report.text()
    assert "@eaDir" not in report.text()
    assert report.counts[["joy", "sadness"]].sum().tolist() == [21, 20]
    assert report.counts["anger"].to_dict() == {"train": 16, "val": 1, "test": 3}
    assert found(report, "unlisted") == ["happy/deeper/x.png", "top.png"]


def test_litter_is_passed_over_and_counted(folders, tmp_path):
    litter = ".DS_Store happy/Thumbs.db happy/._00.png angry/@eaDir __MACOSX .cache".split()
    for name in [*litter[:3], "angry/@eaDir/a.png", "__MACOSX/happy/b.png", ".cache/deep/c.png"]:
        (folders / name).parent.mkdir(parents=True, exist_ok=True)
        (folders / name).write_bytes(b"not looked at")
    report = convert("imagefolder", folders, tmp_path / "out")
    assert sorted(found(report, "passed over")) == sorted(litter) and report.listed == 60
    _, line, rest = report.text().partition("\n6 passed over: put there by a system or program")
    assert line and "DS_Store" not in rest and len(report.problems) == 6


def test_imagefolder_keeps_a_split(folders, tmp_path):
    for split in ("training", "valid", "test"):
        shutil.copytree(folders, tmp_path / "split" / split)
    picture(tmp_path / "split" / "angry" / "loose.png")
    report = convert("imagefolder", tmp_path / "split", tmp_path / "out")
    assert report.counts.sum(axis=1).to_dict() == {"train": 60, "val": 60, "test": 60}
    assert found(report, "no split") == ["angry/loose.png"]


def test_odd_names_are_made_safe_and_unusable_files_are_listed(tmp_path):
    home = tmp_path / "photos" / "fear"
    names = ["a b.png", "a\nb.png", "a_b.png", "A_B.PNG", "x" * 200 + ".png", "雪.png", "-.._.png"]
    for name in names:
        picture(home / name, format="PNG")
    shutil.copy(picture(tmp_path / "one.png"), os.fsencode(home) + b"/caf\xe9.png")
    picture(home / "really.jpg", format="GIF")
    (home / "cut.png").write_bytes((home / "a b.png").read_bytes()[:90])
    picture(tmp_path / "photos" / "joy" / "sun.png")
    report = convert("imagefolder", tmp_path / "photos", tmp_path / "out")
    assert found(report, "bad file") == ["fear/cut.png"]
    images = written(tmp_path / "out")
    assert scan(tmp_path / "out").problems.query("kind == 'misnamed'").empty
    assert len({name.casefold() for name in images}) == 10
    assert not any(name.split("/")[2][0] in ".-_" for name in images)
    assert report.text().encode("utf-8")


def test_the_split_follows_the_seed_and_copies_stay_together(folders, tmp_path):
    for path in list(folders.rglob("*.png")):
        shutil.copy(path, path.with_name(f"twin_{path.name}"))
    report = convert("imagefolder", folders, tmp_path / "a")
    assert len(found(report, "duplicate")) == 60 and not found(report, "duplicate across splits")
    assert report.counts["joy"].tolist() == [32, 2, 6]
    convert("imagefolder", folders, tmp_path / "b")
    convert("imagefolder", folders, tmp_path / "c", seed=1)
    trees = [written(tmp_path / out) for out in "abc"]
    assert trees[0] == trees[1] != trees[2] and len(trees[0]) == 120


def test_what_cannot_be_written_to_is_left_as_it_is(folders, tmp_path):
    (tmp_path / "out").mkdir()
    convert("imagefolder", folders, tmp_path / "out")  # an empty folder is taken
    before = written(tmp_path / "out")
    (tmp_path / "file").write_text("")
    for out in ("out", "file", "file/out"):
        with pytest.raises(InputError, match="not empty|file"):
            convert("imagefolder", folders, tmp_path / out, seed=1)
    assert written(tmp_path / "out") == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_conversion_leaves_nothing(folders, tmp_path, monkeypatch, stop):
    monkeypatch.setattr(module, "_place", Mock(side_effect=stop))
    with pytest.raises((KeyboardInterrupt, InputError), match="No space left|^$"):
        convert("imagefolder", folders, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_without_what_is_wanted(tmp_path, name):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        convert(name, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "odd.csv").write_text("1,3\n")
    picture(tmp_path / "source" / "1.jpg")
    with pytest.raises(InputError, match=f"source does not hold {name}.*Wanted: "):
        convert(name, tmp_path / "source", tmp_path / "out")


def test_lists_and_names_that_are_none(fi, emoset, tmp_path):
    shutil.rmtree(fi / "images")
    with pytest.raises(InputError, match="no image is left to write.*42 no file.*3 tie"):
        convert("fi", fi, tmp_path / "out")
    (emoset[0] / "train.json").write_bytes(b"\xff[")
    with pytest.raises(InputError, match=r"train\.json is no list of images"):
        convert("emoset", emoset[0], tmp_path / "out")
    with pytest.raises(InputError, match="no data set 'FI2'.*fi, emoset.*imagefolder, datasets"):
        convert("FI2", tmp_path, tmp_path / "out")


def rows(folder, labels, seed):
    paths = [picture(folder / f"{seed}_{k}.png", 100 * seed + k) for k in range(len(labels))]
    kind = library.ClassLabel(names=["fear", "joy"])
    features = library.Features({"image": library.Image(), "emotion": kind})
    columns = {"image": [*map(str, paths)], "emotion": labels}
    return library.Dataset.from_dict(columns, features=features)


def test_saved_data_sets(tmp_path):
    parts = {"train": [0, 1] * 3, "validation": [0, 1], "test": [1, 0, -1]}
    raw = tmp_path / "raw"
    parts = {name: rows(raw, labels, k) for k, (name, labels) in enumerate(parts.items())}
    library.DatasetDict(parts).save_to_disk(str(tmp_path / "split"))
    shutil.rmtree(raw)
    report = convert("datasets", tmp_path / "split", tmp_path / "out")
    assert report.split == "as released"
    assert report.counts[["fear", "joy"]].to_numpy().tolist() == [[3, 3], [1, 1], [1, 1]]
    assert found(report, "odd row") == ["test/000002"]
    library.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(str(tmp_path / "saved"))
    for source in (tmp_path / "saved", "nobody/nothing"):
        with pytest.raises(InputError, match="is no data set with `image`"):
            convert("datasets", source, tmp_path / "other")
