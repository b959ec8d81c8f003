"""The paper's data sets: small made-up copies of each released form, and everything amiss in one."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emokd_utils.cli.commands import main
from emokd_utils.data import load_dataset
from emokd_utils.emotions import EKMAN, LABEL_SETS, MIKELS
from emokd_utils.errors import InputError
from emokd_utils.scale import convert as catalogue
from emokd_utils.scale.convert import KINDS, SOURCES, convert, overview
from emokd_utils.scan import scan


def picture(path, seed=None, **options):
    """A small image at `path`; without a seed one that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(str(path).encode()) if seed is None else seed)
    Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path, **options)
    return path


def quietly(name, source, out, **options):
    return convert(name, source, out, say=lambda text: None, **options)


def found(report, kind):
    return report.problems["id"][report.problems["kind"] == kind].tolist()


def detail(report, name):
    return report.problems["detail"][report.problems["id"] == name].item()


def written(out):
    """Paths of the images below `out`."""
    return sorted(file.relative_to(out).as_posix() for file in out.glob("*/*/*"))


def sources(out):
    """What the release calls the images -> (split, class)."""
    lines = (out / "metadata.csv").read_text("utf-8").splitlines()[1:]
    pairs = (line.split(",", 1) for line in lines)
    return {name: tuple(file.split("/")[:2]) for file, name in pairs}


# The entries


def test_each_entry_is_complete_and_its_figures_add_up():
    assert list(SOURCES) == [
        "fi", "emoset", "emotion6", "flickr", "instagram", "abstract", "artphoto", "oasis",
    ]  # fmt: skip
    for name, source in SOURCES.items():
        assert source.name == name and source.doi.startswith("10.")
        assert source.where.startswith("http") and source.terms and source.citation and source.note
        labels = LABEL_SETS[source.label_set]
        assert source.images or source.listed
        for sizes in (source.per_class, source.per_split):
            assert not sizes or sum(sizes.values()) == source.images
        assert not source.per_class or set(source.per_class) == set(labels)
        text = source.text()
        for word in (source.title, source.doi, source.where, source.terms, source.form):
            assert word in text
        assert f"\n{name} " in overview() and source.where in overview()


# FI

FLICKR = "http://farm6.staticflickr.com/5515/"


def fi_line(emotion, name, against, agree):
    return f"{emotion},{FLICKR}{name},{against},{agree}"


@pytest.fixture
def fi(tmp_path):
    """Two classes of 20 images, and one image for everything that may be amiss."""
    root = tmp_path / "fi"
    lines = []
    for emotion in ("fear", "awe"):
        for number in range(20):
            name = f"{emotion}{number:02d}.jpg"
            picture(root / "images" / emotion / name)
            lines.append(fi_line(emotion, name, 1, 4))
    lines += [fi_line("fear", name, *votes) for name, votes in {
        "tied.jpg": (2, 2), "against.jpg": (3, 2), "gone.jpg": (0, 5), "twice.jpg": (0, 3),
        "10344412133_d9d6ea3b6a_b.jpg": (0, 5), "both.jpg": (1, 4), "equal.jpg": (1, 4),
    }.items()]  # fmt: skip
    for name in ("tied", "against", "10344412133", "both", "equal", "extra"):
        picture(root / "images" / "fear" / f"{name}.jpg")
    (root / "agg").mkdir()
    (root / "agg" / "fear_1st_1000.csv").write_text("\n".join(lines) + "\n")
    lines = [fi_line("fear", "twice.jpg", 3, 0), fi_line("awe", "both.jpg", 2, 3)]
    lines += [fi_line("awe", "equal.jpg", 1, 4), fi_line("awe", "odd.jpg", "few", 3)]
    (root / "agg" / "awe_2nd_1000.csv").write_text("\n".join(lines))
    (root / "README.txt").write_text("Lists of addresses, with votes, of many images, on Flickr\n")
    return root


def test_fi_votes_are_resolved_and_all_else_is_listed(fi, tmp_path):
    report = quietly("fi", fi, tmp_path / "out")
    assert found(report, "tie") == [f"{FLICKR}{name}.jpg" for name in ("equal", "tied", "twice")]
    assert detail(report, f"{FLICKR}equal.jpg") == "4 each for awe, fear"
    assert found(report, "no class") == [f"{FLICKR}against.jpg"]
    assert found(report, "no file") == [f"{FLICKR}gone.jpg"]
    assert found(report, "odd row") == ["agg/awe_2nd_1000.csv, line 4"]
    assert "few" in detail(report, "agg/awe_2nd_1000.csv, line 4")
    assert found(report, "unlisted") == ["images/fear/extra.jpg"]
    places = sources(tmp_path / "out")
    assert places[f"{FLICKR}both.jpg"][1] == "fear", "four for fear, three for awe"
    assert places[f"{FLICKR}10344412133_d9d6ea3b6a_b.jpg"][1] == "fear", "kept under its number"
    assert len(places) == 42 and report.listed == 48
    assert report.counts.loc[:, ["awe", "fear"]].to_dict("list") == {
        "awe": [16, 1, 3], "fear": [18, 1, 3],
    }  # fmt: skip
    text = report.text()
    assert "images: 23,266 fewer than the 23,308 published (-99.8 %)" in text
    assert "awe: 3,131 fewer than the 3,151 published (-99.4 %)" in text
    for kind in set(report.problems["kind"]):
        assert KINDS[kind] in text


def test_the_layout_is_what_load_dataset_reads(fi, tmp_path):
    out = tmp_path / "deep" / "out"
    quietly("fi", fi, out)
    assert scan(out).ok
    dataset = load_dataset(out)
    assert dataset.label_set is MIKELS and set(dataset.labels) == {"awe", "fear"}
    assert dataset.table["source_id"].notna().all()
    image = next(iter(dataset.ids))
    name = Path(dataset.table.loc[image, "source_id"]).name
    assert (out / image).read_bytes() == next(fi.rglob(name)).read_bytes()


def test_source_json_tells_everything(fi, tmp_path):
    report = quietly("fi", fi, tmp_path / "out", seed=3)
    data = json.loads((tmp_path / "out" / "source.json").read_text("utf-8"))
    assert data["source"]["doi"] == SOURCES["fi"].doi and data["source"]["terms"]
    assert (data["seed"], data["split"], data["listed"]) == (3, "drawn", 48)
    assert data["images"]["train"]["awe"] == 16
    assert data["published"] == list(report.published)
    assert [name for name, _ in data["problems"]["tie"]] == found(report, "tie")
    assert str(tmp_path) not in json.dumps(data)


def test_a_copy_of_fi_as_class_folders(tmp_path):
    for emotion in ("anger", "sad"):
        for number in range(3):
            picture(tmp_path / "fi" / "emotion_dataset" / emotion / f"{number}.jpg")
    picture(tmp_path / "fi" / "emotion_dataset" / "bored" / "0.jpg")
    picture(tmp_path / "fi" / "teaser.png")
    report = quietly("fi", tmp_path / "fi", tmp_path / "out")
    assert report.counts[["anger", "sadness"]].to_numpy().tolist() == [[1, 1], [1, 1], [1, 1]]
    assert found(report, "no class") == ["emotion_dataset/bored/0.jpg"]
    assert found(report, "unlisted") == ["teaser.png"]


# EmoSet


@pytest.fixture
def emoset(tmp_path):
    root = tmp_path / "EmoSet-118K"
    entries = {"train": [], "val": [], "test": []}
    for number, emotion in enumerate(MIKELS):
        for split, count in (("train", 3), ("val", 1), ("test", 2)):
            for k in range(count):
                name = f"{emotion}_{len(split)}{k:04d}"
                image = f"image/{emotion}/{name}.jpg"
                picture(root / image)
                note = f"annotation/{emotion}/{name}.json"
                entry = [emotion, name, image, note] if number % 2 else [emotion, image, note]
                entries[split].append(entry)
    return root, entries


def save(root, entries):
    for split, rows in entries.items():
        (root / f"{split}.json").write_text(json.dumps(rows))


def test_emoset_keeps_its_split(emoset, tmp_path):
    root, entries = emoset
    save(root, entries)
    report = quietly("emoset", root, tmp_path / "out")
    assert report.split == "released" and report.problems.empty
    assert report.counts.sum(axis=1).to_dict() == {"train": 24, "val": 8, "test": 16}
    assert all(
        place == (split, row[0])
        for split, rows in entries.items()
        for row in rows
        for place in [sources(tmp_path / "out")[row[-2]]]
    )
    text = report.text()
    assert "test: 17,700 fewer than the 17,716 published (-99.9 %)" in text
    assert "listed: 118,054 fewer than the 118,102 published (-100.0 %)" in text


def test_duplicates_across_splits_and_under_other_labels(emoset, tmp_path):
    root, entries = emoset
    shutil.copy(root / entries["train"][0][-2], root / "image/amusement/copy.jpg")
    entries["test"].append(["amusement", "image/amusement/copy.jpg", ""])
    entries["test"].append(entries["val"][1])  # listed twice
    shutil.copy(root / entries["train"][3][-2], root / "image/fear/other.jpg")
    entries["val"].append(["fear", "image/fear/other.jpg", ""])
    shutil.copy(root / entries["train"][6][-2], root / "image/contentment/near.jpg")
    entries["train"].append(["contentment", "image/contentment/near.jpg", ""])
    save(root, entries)
    report = quietly("emoset", root, tmp_path / "out")
    assert set(found(report, "duplicate across splits")) == {
        entries["train"][0][-2],
        entries["val"][1][-2],
    }
    assert "copy.jpg of amusement, test" in detail(report, entries["train"][0][-2])
    assert set(found(report, "conflict")) == {entries["train"][3][-2], "image/fear/other.jpg"}
    assert len(found(report, "duplicate")) == 1
    assert report.counts.to_numpy().sum() == 50
    assert Counter(scan(tmp_path / "out").problems["kind"]) == {
        "duplicate across splits": 2,
        "duplicate": 1,
    }


def test_emoset_without_lists_or_without_test(emoset, tmp_path):
    root, entries = emoset
    report = quietly("emoset", root, tmp_path / "folders")
    assert report.split == "drawn" and report.counts.to_numpy().sum() == 48
    del entries["test"]
    save(root, entries)
    report = quietly("emoset", root, tmp_path / "part")
    assert report.split == "drawn" and report.counts.to_numpy().sum() == 32
    assert set(report.counts.index) == {"train", "val", "test"}
    assert len(found(report, "unlisted")) == 16


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg", "..\\secret.jpg", "a\0.jpg", ""]
)
def test_names_in_lists_lead_nowhere_else(emoset, tmp_path, name):
    root, entries = emoset
    picture(tmp_path / "secret.jpg")
    entries["train"].append(["fear", name, "note.json"])
    entries["train"] += [["telepathy", entries["val"][0][-2]], "fear", []]
    save(root, entries)
    report = quietly("emoset", root, tmp_path / "out")
    assert report.counts.to_numpy().sum() == 48
    assert len(found(report, "no file") + found(report, "odd row")) == 3
    assert found(report, "no class") == [entries["val"][0][-2]]
    assert not list(tmp_path.glob("out/*/*/*secret*"))


@pytest.mark.parametrize("content", [b"{}", b"[", b"\xff\xfe"])
def test_emoset_lists_that_are_none(emoset, tmp_path, content):
    root, _ = emoset
    (root / "train.json").write_bytes(content)
    with pytest.raises(InputError, match=r"train\.json is no list of images"):
        quietly("emoset", root, tmp_path / "out")


def test_links_out_of_the_source_are_not_followed(emoset, tmp_path):
    root, entries = emoset
    secret = picture(tmp_path / "secret.jpg")
    inner = root / entries["train"][0][-2]
    for name, target in (("out", secret), ("in", inner), ("lost", root / "none.jpg")):
        (root / "image" / "awe" / f"{name}.jpg").symlink_to(target)
    (root / "image" / "more").symlink_to(tmp_path)
    (root / "list.txt").symlink_to(tmp_path / "secret.jpg")
    report = quietly("emoset", root, tmp_path / "new")
    assert found(report, "outside") == ["image/awe/lost.jpg", "image/awe/out.jpg"]
    assert found(report, "conflict") == [entries["train"][0][-2], "image/awe/in.jpg"]
    assert not any(path.is_symlink() for path in (tmp_path / "new").rglob("*"))


# OASIS

OASIS = ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N"


def oasis_line(number, theme, valence):
    return f"I{number},{theme},Object,Pixabay,{valence},1.1,102"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_oasis_mean_valences_become_classes(tmp_path, newline):
    root = tmp_path / "oasis"
    lines = [OASIS]
    for theme, valence in (("Car crash", "1.852941176"), ("Beach", "6.366336634")):
        for number in range(1, 21):
            picture(root / "Images" / f"{theme} {number}.jpg")
            lines.append(oasis_line(len(lines), f"{theme} {number}", valence))
    edges = {"Bored pose 1": "3.6", "Bark 1": "3.600001", "Acorns 1": "5.199", "Cheer 1": "5.2"}
    for theme, valence in edges.items():
        picture(root / "Images" / f"{theme}.jpg")
        lines.append(oasis_line(len(lines), theme, valence))
    lines += [oasis_line(45, "Gone 1", "2"), oasis_line(46, "Odd 1", "0.5"), "I47,Short 1,Object"]
    (root / "OASIS.csv").write_bytes((newline.join(lines) + newline).encode())
    report = quietly("oasis", root, tmp_path / "out")
    assert found(report, "no class") == ["Acorns 1", "Bark 1"]
    assert detail(report, "Acorns 1").startswith("mean valence 5.199")
    assert found(report, "no file") == ["Gone 1"]
    assert found(report, "odd row") == [f"OASIS.csv, line {number}" for number in (47, 48)]
    places = sources(tmp_path / "out")
    assert places["Bored pose 1"][1] == "negative" and places["Cheer 1"][1] == "positive"
    assert report.counts["negative"].to_dict() == {"train": 13, "val": 3, "test": 5}
    assert report.counts["positive"].to_dict() == {"train": 13, "val": 3, "test": 5}
    assert report.published == ("listed: 853 fewer than the 900 published (-94.8 %)",)
    assert load_dataset(tmp_path / "out").label_set.name == "polarity"


# Emotion6

HEADER = (
    "[image_filename]\t[valence]\t[arousal]\t[prob. anger]\t[prob. disgust]\t[prob. fear]\t"
    "[prob. joy]\t[prob. sadness]\t[prob. surprise]\t[prob. neutral]"
)


def test_emotion6(tmp_path):
    root = tmp_path / "Emotion6"
    lines = [HEADER]
    for place, emotion in enumerate(EKMAN):
        for number in range(1, 6):
            picture(root / "images" / emotion / f"{number}.jpg")
            shares = [0.0] * 7
            shares[(place + 1) % 6 if number == 1 else place] = 0.6
            shares[6] = {4: 0.6, 5: 0.7}.get(number, 0.1)
            lines.append("\t".join([f"{emotion}/{number}.jpg", "2.5", "3.8", *map(str, shares)]))
    lines += ["joy/99.jpg\t1\t1\t0\t0\t0\t1\t0\t0\t0", "joy/98.jpg\t1\t1\t-1\t0\t0\t1\t0\t0\t0"]
    lines += ["joy/97.jpg\t1\t1", "joy/96.jpg\t1\t1\t0\t0\t0\tnan\t0\t0\t0"]
    (root / "ground_truth.txt").write_bytes("\r\n".join(lines).encode())
    (root / "readme.txt").write_text('"Cornell Emotion6 Image Database"\n\nDescription:\n')
    report = quietly("emotion6", root, tmp_path / "out")
    assert found(report, "tie") == [f"{emotion}/4.jpg" for emotion in EKMAN]
    assert detail(report, "fear/4.jpg") == "0.6 each for fear, neutral"
    assert found(report, "no class") == [f"{emotion}/5.jpg" for emotion in EKMAN]
    assert found(report, "no file") == ["joy/99.jpg"]
    assert found(report, "odd row") == [f"ground_truth.txt, line {n}" for n in (33, 34, 35)]
    assert sources(tmp_path / "out")["anger/1.jpg"][1] == "disgust"
    assert report.counts.sum().tolist() == [3] * 6
    assert report.published == ("listed: 1,946 fewer than the 1,980 published (-98.3 %)",)
    assert len(written(tmp_path / "out")) == 18


# Flickr, Instagram


@pytest.mark.parametrize(
    "form, encoding",
    [
        ("id,num_of_positive,num_of_neutral,num_of_negative", "utf-8"),
        ('"Image ID";"Positive";"Neutral";"Negative"', "utf-8-sig"),
        ("ID\tpositive\tneutral\tnegative\tGl\xfcck", "cp1252"),
        ("id positive neutral negative", "utf-16"),
    ],
)
@pytest.mark.parametrize("name", ["flickr", "instagram"])
def test_polarity_lists(tmp_path, name, form, encoding):
    separator = next((mark for mark in ",;\t" if mark in form), " ")
    votes = {f"p{k}": (3, 0, 0) for k in range(5)} | {f"n{k}": (1, 0, 2) for k in range(5)}
    votes |= {"split": (1, 1, 1), "dull": (1, 2, 0), "gone": (0, 0, 3)}
    for batch in range(2):
        rows = [separator.join(map(str, (k, *v))) for k, v in list(votes.items())[batch::2]]
        path = tmp_path / "source" / f"batch{batch}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes("\n".join([form, *rows, "", ""]).encode(encoding))
    for key in votes.keys() - {"gone"}:
        picture(tmp_path / "source" / "fetched" / f"{key}.png")
    report = quietly(name, tmp_path / "source", tmp_path / "out")
    assert report.counts.sum().to_dict() == {"negative": 5, "positive": 5}
    assert [found(report, kind) for kind in ("tie", "no class", "no file", "odd row")] == [
        ["split"], ["dull"], ["gone"], [],
    ]  # fmt: skip
    assert detail(report, "dull") == "neutral: 2 of 3" and report.listed == 13
    assert all(place[1][0] == key[0] for key, place in sources(tmp_path / "out").items())


def test_a_list_that_does_not_name_its_columns_is_refused(tmp_path):
    picture(tmp_path / "source" / "images" / "1.jpg")
    (tmp_path / "source" / "list.csv").write_text("1,3,0,0\n")
    with pytest.raises(InputError, match="does not hold flickr.*names the columns"):
        quietly("flickr", tmp_path / "source", tmp_path / "out")


# Abstract, ArtPhoto


@pytest.fixture
def abstract(tmp_path):
    root = tmp_path / "testImages_abstract"
    lines = ["'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"]
    for number in range(1, 25):
        picture(root / f"abstract_{number:04d}.jpg")
        votes = [1] * 8
        votes[number % 8] += 4
        votes[(number + 1) % 8] += 4 * (number > 16)
        lines.append(",".join([f"'abstract_{number:04d}.jpg'", *map(str, votes)]))
    (root / "ABSTRACT_groundTruth.csv").write_text("\n".join(lines))
    return root


def test_abstract_drops_ties(abstract, tmp_path):
    report = quietly("abstract", abstract, tmp_path / "out")
    assert report.counts.sum().tolist() == [2] * 8
    assert found(report, "tie") == [f"abstract_{number:04d}.jpg" for number in range(17, 25)]
    assert sources(tmp_path / "out")["abstract_0003.jpg"][1] == "contentment"
    assert report.published[:2] == (
        "listed: 256 fewer than the 280 published (-91.4 %)",
        "images: 212 fewer than the 228 published (-93.0 %)",
    )


def test_numbers_as_published_more_and_a_little_off(abstract, tmp_path, monkeypatch):
    entry = replace(SOURCES["abstract"], listed=24, images=10, per_class={"anger": 2})
    monkeypatch.setitem(SOURCES, "abstract", entry)
    assert quietly("abstract", abstract, tmp_path / "out").published == (
        "listed: 24, as published",
        "images: 6 more than the 10 published (+60.0 %)",
        "anger: 2, as published",
    )
    counts = quietly("abstract", abstract, tmp_path / "again").counts
    entry = replace(entry, listed=23_308, images=None, per_class={})
    assert list(catalogue._compare(entry, 23_196, counts, False)) == [
        "listed: 112 fewer than the 23,308 published (-0.5 %)"
    ]
    assert "(under 0.1 %)" in next(catalogue._compare(entry, 23_309, counts, False))


def test_artphoto(tmp_path):
    root = tmp_path / "testImages_artphoto"
    for emotion in ("amusement", "sad", "content"):
        for number in range(4):
            picture(root / f"{emotion}_{number:04d}.jpg")
    picture(root / "boredom_0001.jpg")
    report = quietly("artphoto", root, tmp_path / "out")
    kept = report.counts.sum()
    assert kept[kept > 0].to_dict() == {"amusement": 4, "contentment": 4, "sadness": 4}
    assert found(report, "no class") == ["boredom_0001.jpg"]
    assert "test/sadness/" in "".join(written(tmp_path / "out"))


# Any class folders


@pytest.fixture
def folders(tmp_path):
    for label in ("happy", "Sadness", "angry"):
        for number in range(20):
            picture(tmp_path / "photos" / label / f"{number:02d}.png")
    return tmp_path / "photos"


def test_imagefolder_with_other_spellings(folders, tmp_path):
    picture(folders / "happiness" / "00.png")
    picture(folders / "happy" / "deeper" / "x.png")
    picture(folders / "top.png")
    (folders / "happy" / "notes.txt").write_text("")
    report = quietly("imagefolder", folders, tmp_path / "out")
    kept = report.counts.sum()
    assert kept[kept > 0].to_dict() == {"anger": 20, "joy": 21, "sadness": 20}
    assert report.counts["anger"].to_dict() == {"train": 16, "val": 1, "test": 3}
    assert found(report, "unlisted") == ["happy/deeper/x.png", "top.png"]
    assert report.published == () and load_dataset(tmp_path / "out").label_set is EKMAN
    assert json.loads((tmp_path / "out" / "source.json").read_text())["source"] == "imagefolder"


def test_imagefolder_keeps_a_split(folders, tmp_path):
    for split in ("training", "valid", "test"):
        shutil.copytree(folders, tmp_path / "split" / split)
    shutil.rmtree(tmp_path / "split" / "valid" / "angry")
    picture(tmp_path / "split" / "angry" / "loose.png")
    report = quietly("imagefolder", tmp_path / "split", tmp_path / "out")
    assert report.split == "released"
    assert report.counts.sum(axis=1).to_dict() == {"train": 60, "val": 40, "test": 60}
    assert len(found(report, "duplicate across splits")) == 100
    assert found(report, "no split") == ["angry/loose.png"]


def test_classes_of_no_known_set(tmp_path):
    for label in ("b?c", "b_c", "B!c", "rëd"):
        for number in range(3):
            picture(tmp_path / "photos" / label / f"{number}.png")
    report = quietly("imagefolder", tmp_path / "photos", tmp_path / "out")
    assert report.counts.to_numpy().tolist() == [[1] * 4] * 3
    names = {path.name.casefold() for path in (tmp_path / "out" / "train").iterdir()}
    assert len(names) == 4 and "rëd" in names


def test_names_of_files_are_made_safe(tmp_path):
    names = ["a b.png", "a\nb.png", "a_b.png", "A_B.PNG", "x" * 200 + ".png", "雪.png", "-.._.png"]
    for name in names:
        picture(tmp_path / "photos" / "fear" / name, format="PNG")
    latin = os.fsencode(tmp_path / "photos" / "fear") + b"/caf\xe9.png"
    shutil.copy(picture(tmp_path / "one.png"), latin)
    shutil.copy(picture(tmp_path / "two.png"), tmp_path / "photos" / "fear" / "empty.png")
    (tmp_path / "photos" / "fear" / "empty.png").write_bytes(b"")
    report = quietly("imagefolder", tmp_path / "photos", tmp_path / "out")
    assert scan(tmp_path / "out").problems.query("kind == 'misnamed'").empty
    assert len({name.casefold() for name in written(tmp_path / "out")}) == 8
    assert not any(name.split("/")[2][0] in ".-_" for name in written(tmp_path / "out"))
    assert found(report, "bad file") == ["fear/empty.png"]
    assert report.text().encode("utf-8")


def test_unusable_files_are_listed_and_wrong_suffixes_put_right(folders, tmp_path):
    picture(folders / "happy" / "really.jpg", format="GIF")
    (folders / "happy" / "page.jpg").write_text("<!DOCTYPE html><html>this photo is gone</html>")
    cut = picture(folders / "happy" / "cut.png")
    cut.write_bytes(cut.read_bytes()[:90])
    report = quietly("imagefolder", folders, tmp_path / "out")
    assert found(report, "bad file") == ["happy/cut.png", "happy/page.jpg"]
    assert "web page" in detail(report, "happy/page.jpg")
    assert [name for name in written(tmp_path / "out") if "really" in name][0].endswith(".gif")
    assert scan(tmp_path / "out").ok


def test_copies_stay_together_where_the_split_is_drawn(folders, tmp_path):
    for path in list(folders.rglob("*.png")):
        shutil.copy(path, path.with_name(f"twin_{path.name}"))
    report = quietly("imagefolder", folders, tmp_path / "out")
    assert len(found(report, "duplicate")) == 60 and not found(report, "duplicate across splits")
    assert report.counts["joy"].tolist() == [32, 2, 6]
    assert set(scan(tmp_path / "out").problems["kind"]) == {"duplicate", "missing class"}


def test_the_split_follows_the_seed_alone(folders, tmp_path):
    shutil.copytree(folders, tmp_path / "elsewhere")
    trees = [
        quietly("imagefolder", source, tmp_path / f"out{k}", seed=seed)
        and written(tmp_path / f"out{k}")
        for k, (source, seed) in enumerate(
            [(folders, 0), (tmp_path / "elsewhere", 0), (folders, 1)]
        )
    ]
    assert trees[0] == trees[1] != trees[2]
    assert (tmp_path / "out0" / "source.json").read_text() == (
        tmp_path / "out1" / "source.json"
    ).read_text()


# Writing


def test_links_share_the_file(folders, tmp_path):
    quietly("imagefolder", folders, tmp_path / "linked", link=True)
    quietly("imagefolder", folders, tmp_path / "copied")
    for out, links in (("linked", 2), ("copied", 1)):
        images = [tmp_path / out / name for name in written(tmp_path / out)]
        assert len(images) == 60 and {path.stat().st_nlink for path in images} == {links}
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "linked").stat().st_mode == plain.stat().st_mode


def test_links_to_another_disk_are_refused(folders, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(InputError, match="cannot be linked.*without links"):
        quietly("imagefolder", folders, tmp_path / "out", link=True)
    assert not (tmp_path / "out").exists()


def test_a_second_run_is_refused_and_an_empty_folder_taken(folders, tmp_path):
    (tmp_path / "out").mkdir()
    quietly("imagefolder", folders, tmp_path / "out")
    before = written(tmp_path / "out")
    with pytest.raises(InputError, match="out is there and not empty"):
        quietly("imagefolder", folders, tmp_path / "out", seed=1)
    assert written(tmp_path / "out") == before
    for name in ("photos/out", "photos"):
        with pytest.raises(InputError, match="inside the source|not empty"):
            quietly("imagefolder", folders, tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is there"):
        quietly("imagefolder", folders, tmp_path / "file")
    with pytest.raises(InputError, match="file"):
        quietly("imagefolder", folders, tmp_path / "file" / "out")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("place", ["open_image", "_place"])
def test_an_interrupted_conversion_leaves_nothing(folders, tmp_path, monkeypatch, stop, place):
    calls = []
    function = getattr(catalogue, place)

    def fail(*args):
        calls.append(args)
        if len(calls) == 30 or place == "_place":
            raise stop
        return function(*args)

    monkeypatch.setattr(catalogue, place, fail)
    with pytest.raises((KeyboardInterrupt, InputError)) as error:
        quietly("imagefolder", folders, tmp_path / "out")
    assert error.type is KeyboardInterrupt or "No space left" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_what_a_killed_conversion_left_is_named(folders, tmp_path):
    code = (
        "import os, sys; from emokd_utils import catalogue; "
        "catalogue._place = lambda *args: os._exit(9); "
        "catalogue.convert('imagefolder', sys.argv[1], sys.argv[2])"
    )
    command = [sys.executable, "-c", code, str(folders), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == 9
    assert not (tmp_path / "out").exists()
    heard = []
    convert("imagefolder", folders, tmp_path / "out", say=heard.append)
    assert len(heard) == 1 and ".part is left" in heard[0]
    assert len(written(tmp_path / "out")) == 60


@pytest.mark.parametrize("name", [*SOURCES, "imagefolder"])
def test_a_source_without_what_is_wanted(tmp_path, name):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        quietly(name, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "odd.csv").write_text("")
    with pytest.raises(InputError, match=f"source does not hold {name}.*Wanted: "):
        quietly(name, tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_image_left(fi, tmp_path):
    shutil.rmtree(fi / "images")
    with pytest.raises(InputError, match="no image is left to write.*43 no file.*3 tie"):
        quietly("fi", fi, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_name(tmp_path):
    with pytest.raises(InputError, match="no data set 'FI2'.*fi, emoset.*imagefolder, datasets"):
        quietly("FI2", tmp_path, tmp_path / "out")


# The library `datasets`


def test_without_the_library_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[datasets\]"'):
        quietly("datasets", "someone/somewhere", tmp_path / "out")


@pytest.fixture
def library():
    import datasets

    return datasets


def rows(library, folder, labels, seed=0, kind=None):
    images = [
        str(picture(folder / f"{seed}_{k}.png", seed=100 * seed + k)) for k in range(len(labels))
    ]
    features = {
        "image": library.Image(),
        "label": kind or library.ClassLabel(names=["fear", "joy"]),
    }
    return library.Dataset.from_dict(
        {"image": images, "label": labels}, features=library.Features(features)
    )


def test_a_saved_data_set_with_splits(library, tmp_path):
    parts = {"train": [0, 1] * 3, "validation": [0, 1], "test": [1, 0, -1]}
    data = library.DatasetDict(
        {
            name: rows(library, tmp_path / "raw", labels, seed)
            for seed, (name, labels) in enumerate(parts.items())
        }
    )
    data.save_to_disk(str(tmp_path / "saved"))
    shutil.rmtree(tmp_path / "raw")
    report = quietly("datasets", tmp_path / "saved", tmp_path / "out")
    assert report.split == "released"
    assert report.counts[["fear", "joy"]].to_numpy().tolist() == [[3, 3], [1, 1], [1, 1]]
    assert found(report, "odd row") == ["test/000002"]
    assert scan(tmp_path / "out").images["label"].isin(["fear", "joy"]).all()


def test_a_saved_data_set_without_splits(library, tmp_path):
    labels = ["sad", "happy"] * 10
    data = rows(library, tmp_path / "raw", labels, kind=library.Value("string"))
    data.save_to_disk(str(tmp_path / "saved"))
    report = quietly("datasets", tmp_path / "saved", tmp_path / "out")
    assert report.split == "drawn"
    assert report.counts[["joy", "sadness"]].to_numpy().tolist() == [[7, 7], [1, 1], [2, 2]]


@pytest.mark.parametrize("place, usable", [("secret.png", 0), ("saved/raw/0.png", 1)])
def test_images_outside_of_the_saved_folder_are_not_read(library, tmp_path, place, usable):
    path = picture(tmp_path / place)
    held = {"bytes": library.Value("binary"), "path": library.Value("string")}
    library.Dataset.from_dict(
        {"image": [{"bytes": None, "path": str(path)}, {"bytes": path.read_bytes(), "path": None}],
         "label": ["fear", "fear"]},
        features=library.Features({"image": held, "label": library.Value("string")}),
    ).save_to_disk(str(tmp_path / "saved"))  # fmt: skip
    info = tmp_path / "saved" / "dataset_info.json"
    data = json.loads(info.read_text())
    data["features"]["image"] = {"_type": "Image"}
    info.write_text(json.dumps(data))
    report = quietly("datasets", tmp_path / "saved", tmp_path / "out")
    assert report.counts.to_numpy().sum() == 1 + usable
    assert len(found(report, "no file")) == 1 - usable


def test_a_data_set_of_the_library_that_does_not_fit(library, tmp_path):
    library.Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match="saved has the columns text, label"):
        quietly("datasets", tmp_path / "saved", tmp_path / "out")
    (tmp_path / "odd").mkdir()
    for source in (tmp_path / "odd", "nobody/nothing"):
        with pytest.raises(InputError, match="cannot be loaded by `datasets`"):
            quietly("datasets", source, tmp_path / "out")


# The command


def test_the_command(fi, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["convert", "fi", str(fi), out, "--seed", "2", "--link"]) == 0
    text = capsys.readouterr().out
    assert "42 of 48 listed images, split drawn with seed 2" in text and "3 tie" in text
    assert main(["convert", "fi", str(fi), out]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["convert", "fi", str(fi)]) == 2
    assert "NAME SOURCE OUT" in capsys.readouterr().err


def test_the_command_lists_what_there_is(capsys):
    assert main(["convert", "--list"]) == 0
    assert capsys.readouterr().out == overview() + "\n"
    assert main(["convert", "--list", "emotion6"]) == 0
    assert "academic research" in capsys.readouterr().out
    assert main(["convert", "--list", "nothing"]) == 2
    assert "no data set 'nothing'" in capsys.readouterr().err


# Memory


@pytest.mark.slow
def test_memory_stays_flat_over_many_images(tmp_path):
    """20,000 images are converted, scanned and opened, in 150 MB beyond the start."""
    for number in range(20_000):
        path = tmp_path / "photos" / MIKELS.labels[number % 8] / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), number).save(path)
    code = (
        "import resource, sys; from emokd_utils import catalogue, datasets\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "catalogue.convert('imagefolder', sys.argv[1], sys.argv[2], link=True)\n"
        "data = datasets.load_dataset(sys.argv[2])\n"
        "assert sum(data.open(image).width for image in data.ids) == 8 * 20_000\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "photos"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 150_000  # kilobytes
