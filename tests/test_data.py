"""Folders of images: every bad input is named, every good one opens as upright RGB."""

import io
import os
import shutil
import zlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emokd_utils.data import load_dataset, stratified_split
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.folders import list_files
from emokd_utils.images import open_image
from emokd_utils.scan import KINDS, ScanReport, scan

COUNTS = {"train": 4, "val": 2, "test": 3}


def picture(seed, size=(8, 6)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(zlib.crc32("/".join(path.parts[-3:]).encode())).save(path)


@pytest.fixture
def make_root(tmp_path):
    """A sound data set; counts: images of each class by split."""

    def make(counts=COUNTS, classes=("negative", "positive")):
        for split, count in counts.items():
            for label in classes:
                for number in range(count):
                    write(tmp_path / "data" / split / label / f"{number:03d}.png")
        return tmp_path / "data"

    return make


@pytest.fixture
def root(make_root):
    return make_root()


def found(report, kind):
    """The paths of a kind of problem."""
    return report.problems["path"][report.problems["kind"] == kind].tolist()


def all_found(report):
    return list(report.problems[["kind", "path"]].itertuples(index=False, name=None))


def encoded(format):
    buffer = io.BytesIO()
    picture(1, (64, 64)).save(buffer, format)
    return buffer.getvalue()


def gif_that_says(width, height):
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"GIF89a" + sides + encoded("GIF")[10:]


# open_image

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def opened(path, image, **options):
    image.save(path, **options)
    result = open_image(path)
    assert result.mode == "RGB"
    return np.asarray(result).astype(int)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(tmp_path, format):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste(RED, (0, 0, 16, 8))  # the upper left quarter
    stored_as = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse turn (PIL's numbers)
    for orientation, turn in stored_as.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        values = opened(tmp_path / "a", upright.transpose(turn), format=format, exif=exif)
        assert values.shape == (16, 32, 3)
        assert np.abs(values - np.asarray(upright).astype(int))[4::8, 8::16].max() < 60


def row(values, dtype=np.uint8):
    return Image.fromarray(np.array([values], dtype=dtype))


PALETTE = row([0, 1]).convert("P")
PALETTE.putpalette([*BLACK, *RED])
MODES = [  # suffix, image, options of saving, red of each pixel, green of each
    ("png", row([0, 100, 255]), {}, [0, 100, 255], [0, 100, 255]),
    ("png", row([0, 257, 128 * 257, 65535], np.uint16), {}, [0, 1, 128, 255], [0, 1, 128, 255]),
    ("tif", row([-100, 0, 100_000_000], np.int32), {}, [0, 0, 255], [0, 0, 255]),
    ("tif", row([7, 7], np.float32), {}, [7, 7], [7, 7]),
    ("tif", row([np.nan, np.inf, 1], np.float32), {}, [0, 0, 255], [0, 0, 255]),
    ("png", row([(9, 9, 9, 0), (255, 0, 0, 255), (255, 0, 0, 128)]), {}, [255] * 3, [255, 0, 127]),
    ("png", row([(9, 0), (77, 255)]), {}, [255, 77], [255, 77]),
    ("png", row([(1, 2, 3), RED]), {"transparency": (1, 2, 3)}, [255, 255], [255, 0]),
    ("png", PALETTE, {}, [0, 255], [0, 0]),
    ("png", PALETTE, {"transparency": 0}, [255, 255], [255, 0]),
]


@pytest.mark.parametrize(("suffix", "image", "options", "red", "green"), MODES)
def test_every_mode_opens_as_rgb(tmp_path, suffix, image, options, red, green):
    values = opened(tmp_path / f"a.{suffix}", image, **options)[0]
    assert values[:, 0].tolist() == red and values[:, 1].tolist() == green


def test_cmyk_and_the_first_frame_of_an_animation(tmp_path):
    cmyk = opened(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    assert np.abs(cmyk[4, 4] - RED).max() < 10
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    for suffix in ("gif", "webp", "png", "tiff"):
        options = {"save_all": True, "append_images": frames[1:]}
        assert np.abs(opened(tmp_path / f"a.{suffix}", frames[0], **options)[4, 4] - RED).max() < 10


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40, b"no header at all"])
def test_damaged_exif_does_not_cost_the_picture(tmp_path, exif):
    picture(0).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert open_image(tmp_path / "a.jpg").size == (8, 6)


# bad files

BAD_FILES = {
    "empty.png": (b"", "empty"),
    "page.jpg": (b"<!DOCTYPE html><html></html>", "misnamed"),
    "phone.jpeg": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "misnamed"),
    "png.jpg": (encoded("PNG"), "misnamed"),
    "cut.png": (encoded("PNG")[:2000], "truncated"),
    "cut.jpg": (encoded("JPEG")[:-400], "truncated"),
    "cut.gif": (encoded("GIF")[:-100], "truncated"),
    "cut.bmp": (encoded("BMP")[:-100], "truncated"),
    "cut.tiff": (encoded("TIFF")[:-100], "truncated"),
    "cut.webp": (encoded("WEBP")[:-100], "unreadable"),
    "damaged.png": (encoded("PNG")[:3000] + b"\xff" * 50 + encoded("PNG")[3050:], "unreadable"),
    "bomb.gif": (gif_that_says(65_535, 65_535), "oversized"),
    "large.gif": (gif_that_says(9_500, 9_500), "oversized"),
}


def test_bad_files_are_named_with_the_mend_and_skipped_when_asked(root, recwarn):
    sound = load_dataset(root)
    folder = root / "test" / "negative"
    for name, (content, kind) in BAD_FILES.items():
        (folder / name).write_bytes(content)
        if name != "png.jpg":  # a PNG opens, whatever its name
            with pytest.raises(
                InputError, match=rf"{name} \({kind}: .*(replace|copy|shrink|rename)"
            ):
                open_image(folder / name)
    report = scan(root)
    expected = {(kind, f"test/negative/{name}") for name, (_, kind) in BAD_FILES.items()}
    assert set(all_found(report)) == expected and len(report.problems) == len(expected)
    assert not report.ok and len(report.images) == 18
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    text = report.text(limit=2)
    for kind, count in Counter(kind for kind, _ in expected).items():
        assert f"error: {count} {kind}: {KINDS[kind][1]}" in text
    assert "... and" in text
    with pytest.raises(InputError, match=r"cut\.gif(.|\n)*skip_bad=True \(--skip-bad\)"):
        load_dataset(root)
    skipped = load_dataset(root, skip_bad=True)
    assert skipped.ids == sound.ids and skipped.fingerprint == sound.fingerprint


def test_links_and_pipes(root, tmp_path):
    folder, moved = root / "train" / "positive", tmp_path / "elsewhere"
    folder.rename(moved)
    folder.symlink_to(moved)
    write(tmp_path / "extra.png")
    (folder / "link.png").symlink_to(tmp_path / "extra.png")
    assert len(load_dataset(root)) == 19, "linked images and class folders are read"
    (folder / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (folder / "self.png").symlink_to(folder / "self.png")
    os.mkfifo(folder / "pipe.png")
    (root / "train" / "lost").symlink_to(tmp_path / "gone")
    (folder / "loop").symlink_to(root / "train")
    report = scan(root)
    unreadable = [f"train/positive/{name}.png" for name in ("nowhere", "pipe", "self")]
    assert found(report, "unreadable") == ["train/lost", *unreadable]
    assert found(report, "stray") == ["train/positive/loop"]
    assert len(report.images) == 19 and len(report.problems) == 5


def test_names_of_any_kind(root):
    folder = root / "train" / "positive"
    names = ["a b.png", "ünï 雪.JPG", "👩‍🚀.Png", "line\nbreak.png", "two.dots.webp", "phone.jpg"]
    for name in names[:-1]:
        write(folder / name)
    # some cameras write two pictures into one file
    picture(5).save(folder / "phone.jpg", "MPO", save_all=True, append_images=[picture(6)])
    dataset = load_dataset(root)
    assert {dataset.open(f"train/positive/{name}").size for name in names} == {(8, 6)}
    (folder / "a\nerror: 99 fake.png").write_bytes(b"")
    shutil.copy(folder / "000.png", os.fsencode(folder) + b"/caf\xe9.png")
    report = scan(root)
    assert found(report, "misnamed") == ["train/positive/caf\\udce9.png"]
    assert "a\\nerror: 99 fake.png" in report.text() and report.text().encode("utf-8")


# what is where


def test_litter_strays_and_images_that_lie_deeper(root):
    litter = [
        *(".DS_Store", ".hidden/a.png", "train/.DS_Store", "train/positive/Thumbs.db"),
        *("train/positive/._000.png", "train/.ipynb_checkpoints/a.png", "test/desktop.ini"),
        *("README.md", "objects/a.png", "train/__MACOSX/positive/a.png"),
    ]
    strays = ["Validation/positive/a.png", "train/loose.png", "train/positive/notes.txt"]
    for name in [*litter, *strays]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not an image")
    (root / "train" / "odd").mkdir()
    report = scan(root)
    paths = ["Validation", "train/loose.png", "train/odd", "train/positive/notes.txt"]
    assert all_found(report) == [("stray", path) for path in paths]
    assert report.ok and "name it val" in report.text() and len(load_dataset(root)) == 18
    for number in range(3):
        write(root / "train" / "positive" / "more" / "most" / f"{number}.png")
    report = scan(root)
    assert found(report, "nested") == ["train/positive/more"] and not report.ok
    assert "images: 3" in report.text() and len(load_dataset(root, skip_bad=True)) == 18


def test_duplicates_across_and_within_splits(root):
    train, val, test = (root / split / "positive" for split in ("train", "val", "test"))
    Image.open(val / "000.png").save(train / "recoded.bmp")  # other bytes, the same pixels
    shutil.copy(test / "001.png", val / "copy.png")
    shutil.copy(test / "002.png", root / "train" / "negative" / "copy.png")
    shutil.copy(train / "000.png", train / "twin.png")
    report = scan(root)
    across = ["train/negative/copy.png", "train/positive/recoded.bmp", "val/positive/copy.png"]
    assert found(report, "duplicate across splits") == across
    assert found(report, "duplicate") == ["train/positive/twin.png"]
    assert report.ok and len(report.problems) == 4
    assert "same as test/positive/002.png, under another label" in report.text()
    assert set(across) <= set(load_dataset(root).ids)
    skipped = load_dataset(root, skip_bad=True)
    assert not set(across) & set(skipped.ids) and "train/positive/twin.png" in skipped.ids


def test_counts_missing_classes_and_spellings_of_one_emotion(make_root):
    root = make_root({"train": 12, "test": 2}, classes=("Sad", "awe"))
    write(root / "train" / "sadness" / "more.png")
    report = scan(root)
    assert report.label_set is MIKELS and report.folders == ("Sad", "awe", "sadness")
    assert report.counts.loc["train", "sadness"] == 13 and report.counts.loc["test", "awe"] == 2
    assert "29 sound images" in report.text() and "no val/" in report.text()
    assert len(found(report, "missing class")) == 12
    dataset = load_dataset(root)
    assert dataset.label_set is MIKELS and Counter(dataset.labels) == {"sadness": 15, "awe": 14}


# what is no data set, or none that can be used


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda r: None, "No such file"),
        (lambda r: r.write_bytes(b""), "Not a directory"),
        (lambda r: r.mkdir(), "has no train/: put the images into ROOT/train/EMOTION"),
        (lambda r: write(r / "training" / "anger" / "a.png"), "rename training/ to train"),
        (lambda r: (r / "train" / "anger").mkdir(parents=True), "no image in a class folder"),
        (lambda r: write(r / "train" / "a.png"), "found: train/a.png .*in no class folder"),
        (lambda r: write(r / "train" / "photos" / "a.png"), "'photos'.* two classes"),
    ],
)
def test_what_is_no_data_set(tmp_path, build, words):
    build(tmp_path / "my data")
    with pytest.raises(InputError, match=words):
        load_dataset(tmp_path / "my data")


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda make: scan(make() / "train"), "itself a split.*data$"),
        (lambda make: load_dataset(make({"train": 3, "val": 2})), "missing split: .* put images"),
        (lambda make: load_dataset(make({"train": 1, "test": 1})), "no image is left for val"),
        (lambda make: load_dataset(make()).split("dev"), "split 'dev'"),
        (lambda make: load_dataset(make()).open("train/none.png"), "no image 'train/none.png'"),
        (lambda make: load_dataset(make()).select(["train/none.png"]), "'train/none.png' x 1"),
        (lambda make: load_dataset(make()).select(["val/positive/000.png"] * 2), "x 2.*each once"),
    ],
)
def test_refusals_name_the_mend(make_root, call, words):
    with pytest.raises(InputError, match=words):
        call(make_root)


# without val/, and splits drawn anew


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_stratified_split(classes, fraction, seed, shuffler):
    pairs = [(f"train/{name}/{n}", name) for name, count in classes.items() for n in range(count)]
    drawn = stratified_split(*zip(*pairs, strict=True), fraction, seed)
    shuffler.shuffle(pairs)
    assert stratified_split(*zip(*pairs, strict=True), fraction, seed) == drawn
    assert list(drawn) == sorted(set(drawn)) and set(drawn) <= {image for image, _ in pairs}
    taken = Counter(image.split("/")[1] for image in drawn)
    for label, count in classes.items():
        if count == 1:
            assert taken[label] == 0
        else:
            assert 1 <= taken[label] < count
            assert abs(taken[label] - fraction * count) <= 1


def test_val_is_set_apart_from_train_and_twins_are_not_parted(make_root):
    root = make_root({"train": 20, "test": 3})
    val = load_dataset(root).split("val")
    assert Counter(val.labels) == {"negative": 2, "positive": 2}
    drawn = ("negative/000.png", "negative/005.png", "positive/000.png", "positive/013.png")
    assert val.ids == tuple(f"train/{image}" for image in drawn), "whatever the machine"
    for path in list((root / "train").rglob("*.png")):
        shutil.copy(path, path.with_name(f"twin {path.name}"))
    dataset = load_dataset(root)
    splits = {}
    for image, split in dataset.table["split"].items():
        splits.setdefault(image.replace("twin ", ""), set()).add(split)
    assert all(len(of_both) == 1 for of_both in splits.values())
    assert Counter(dataset.table["split"]) == {"train": 72, "val": 8, "test": 6}


def test_resplit_draws_anew_within_classes_and_keeps_copies_together(make_root):
    root = make_root({"train": 12, "val": 4, "test": 4})
    shutil.copy(root / "train/negative/000.png", root / "train/negative/copy.png")
    whole = load_dataset(root)
    drawn = [whole.resplit(seed) for seed in range(4)]
    for data in drawn:
        assert data.ids == whole.ids and data.labels == whole.labels
        counts = data.table.groupby(["label", "split"]).size()
        assert counts["positive"].to_dict() == {"test": 5, "train": 12, "val": 3}
        pair = data.table.loc[["train/negative/000.png", "train/negative/copy.png"], "split"]
        assert pair.nunique() == 1
    assert len({data.fingerprint for data in [whole, *drawn]}) == 5
    assert whole.resplit(3).fingerprint == drawn[3].fingerprint


# metadata.csv


def test_metadata_is_joined(root):
    columns = ["file", "split", "label", "cue", "v"]
    rows = [
        ("train/positive/000.png", "train", "Positive", "NA", 1.5),
        ("./test/negative/001.png", "test", "neg", 'Glück, "b"\nc', None),
        ("train/positive/gone.png", "val", "odd", "x", 2),
    ]
    pd.DataFrame(rows, columns=columns).to_csv(
        root / "metadata.csv", index=False, encoding="utf-8-sig"
    )
    dataset = load_dataset(root)
    assert list(dataset.table.columns) == ["split", "label", "cue", "v"] and len(dataset) == 18
    assert dataset.table.loc["train/positive/000.png", ["cue", "v"]].tolist() == ["NA", 1.5]
    assert dataset.table.loc["test/negative/001.png", "cue"] == 'Glück, "b"\nc'
    assert dataset.table["cue"].isna().sum() == 16 and dataset.table["v"].isna().sum() == 17
    report = scan(root)
    assert found(report, "metadata") == ["metadata.csv", "train/positive/gone.png"]
    assert report.ok and "no row for 16 images, the first test/negative/000.png" in report.text()


@pytest.mark.parametrize(
    "content, about, words",
    [
        (b"file,split\ntrain/positive/000.png,val", "train/positive/000.png", "split 'val'"),
        (b"file,label\ntrain/positive/000.png,neg", "train/positive/000.png", "label 'neg'"),
        (b"", "metadata.csv", "cannot be read"),
        (b"name,cue\na,b\n", "metadata.csv", "has the columns name, cue"),
        (b"file,cue\n,b\n", "metadata.csv", "row 1 has no `file`"),
        (b"file,cue\na,b\na,c\n", "metadata.csv", "row 2 has no `file`, or that of an earlier"),
        (b'file,cue\na,"b\n', "metadata.csv", "cannot be read"),
    ],
)
def test_metadata_that_is_unusable_or_contradicts_the_folders(root, content, about, words):
    (root / "metadata.csv").write_bytes(content)
    assert found(scan(root), "metadata error") == [about]
    with pytest.raises(InputError, match=f"metadata.csv.*{words}"):
        load_dataset(root, skip_bad=True)


# the scan kept


def test_a_scan_kept_as_json_saves_the_second_and_nothing_is_decoded(root, monkeypatch):
    (root / "train" / "positive" / "bad.png").write_bytes(b"")
    report = scan(root)
    again = ScanReport.from_json(report.to_json())
    assert again.folders == report.folders
    assert again.listing == report.listing == list_files(root).fingerprint
    pd.testing.assert_frame_equal(again.images, report.images)
    pd.testing.assert_frame_equal(again.problems, report.problems)
    once = load_dataset(root, skip_bad=True)
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("opened"))
    kept = load_dataset(root, skip_bad=True, report=again)
    assert kept.fingerprint == once.fingerprint
    pd.testing.assert_frame_equal(kept.table, once.table)
    write(root / "train" / "positive" / "new.png")
    with pytest.raises(InputError, match="changed since"):
        load_dataset(root, skip_bad=True, report=again)


# the data set


def test_dataset(root):
    dataset = load_dataset(root)
    assert list(dataset.ids) == sorted(dataset.ids) and len(dataset) == 18
    assert dataset.table.index.name == "id" and list(dataset.table) == ["split", "label"]
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [8, 4, 6]
    ids = ["val/positive/001.png", "test/negative/000.png"]
    chosen = dataset.select(ids)
    assert list(chosen.ids) == ids and chosen.labels == ("positive", "negative")
    assert chosen.label_index.tolist() == [1, 0]
    assert np.array_equal(chosen.open(ids[0]), Image.open(root / ids[0]))


def test_fingerprint_is_of_the_content_not_the_place(root, tmp_path):
    dataset = load_dataset(root)
    copy = load_dataset(shutil.copytree(root, tmp_path / "copy"))
    assert (copy.fingerprint, copy.ids) == (dataset.fingerprint, dataset.ids)
    assert copy.split("train").fingerprint == dataset.split("train").fingerprint
    assert dataset.select(dataset.ids).fingerprint == dataset.fingerprint
    seen = {dataset.fingerprint, dataset.split("train").fingerprint}
    seen.add(dataset.select(dataset.ids[::-1]).fingerprint)
    path = copy.root / "val" / "positive" / "other.png"
    path.with_name("000.png").rename(path)
    seen.add(load_dataset(copy.root).fingerprint)
    write(path)
    seen.add(load_dataset(copy.root).fingerprint)
    assert len(seen) == 5
