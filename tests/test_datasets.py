"""Folders of images: every bad input is named, every good one opens as upright RGB."""

import io
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emokd_utils import images
from emokd_utils import scan as scanning
from emokd_utils.data import load_dataset, stratified_split
from emokd_utils.emotions import EKMAN, MIKELS
from emokd_utils.errors import InputError
from emokd_utils.images import open_image
from emokd_utils.scan import KINDS, ScanReport, listing_fingerprint, scan

COUNTS = {"train": 4, "val": 2, "test": 3}


def picture(seed, size=(8, 6)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def write(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture(zlib.crc32(str(path).encode()))).save(path, **options)
    return path


@pytest.fixture
def make_root(tmp_path):
    """A sound data set; counts: images of each class by split."""

    def make(counts=COUNTS, classes=("negative", "positive"), name="data"):
        for split, count in counts.items():
            for place, label in enumerate(classes):
                for number in range(count):
                    seed = 10_000 * len(split) + 100 * place + number
                    write(tmp_path / name / split / label / f"{number:03d}.png", picture(seed))
        return tmp_path / name

    return make


@pytest.fixture
def root(make_root):
    return make_root()


def found(report, kind=None):
    """(kind, path) of each problem, or the paths of one kind."""
    rows = report.problems[["kind", "path"]].itertuples(index=False, name=None)
    return [path for k, path in rows if k == kind] if kind else list(rows)


def png_with_header(width, height):
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def encoded(format, image=None, **options):
    buffer = io.BytesIO()
    (image or picture(1, (64, 64))).save(buffer, format, **options)
    return buffer.getvalue()


# open_image

RED, WHITE = (255, 0, 0), (255, 255, 255)


def opened(path, image, **options):
    image.save(path, **options)
    result = open_image(path)
    assert result.mode == "RGB"
    return result


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, format, orientation):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste(RED, (0, 0, 16, 8))  # the upper left quarter
    stored_as = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse turn (PIL's numbers)
    stored = upright.transpose(stored_as[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = opened(tmp_path / "a", stored, format=format, exif=exif)
    assert result.size == (32, 16)
    values = np.asarray(result).astype(int)
    assert abs(values[4, 8] - RED).max() < 60
    for y, x in [(4, 24), (12, 8), (12, 24)]:
        assert abs(values[y, x] - WHITE).max() < 60


def test_greyscale_and_bilevel(tmp_path):
    grey = Image.fromarray(np.array([[0, 100], [200, 255]], dtype=np.uint8))
    values = np.asarray(opened(tmp_path / "a.png", grey))
    assert values[..., 0].tolist() == [[0, 100], [200, 255]]
    assert (values == values[..., :1]).all()
    assert opened(tmp_path / "b.png", grey.convert("1")).getpixel((1, 1)) == WHITE


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_greyscale_is_scaled_not_clipped(tmp_path, suffix):
    grey = Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16))
    assert grey.mode == "I;16"
    values = np.asarray(opened(tmp_path / f"a.{suffix}", grey))
    assert values[0, :, 0].tolist() == [0, 1, 128, 255]


def test_integer_and_float_greyscale_is_scaled_from_its_own_range(tmp_path):
    for dtype in (np.int32, np.float32):
        grey = Image.fromarray(np.array([[-100, 0, 100_000_000]], dtype=dtype))
        values = np.asarray(opened(tmp_path / "a.tif", grey))
        assert values[0, :, 1].tolist() == [0, 0, 255]
    flat = Image.fromarray(np.full((2, 2), 7, dtype=np.float32))
    assert opened(tmp_path / "a.tif", flat).getpixel((0, 0)) == (7, 7, 7)
    holed = Image.fromarray(np.array([[np.nan, np.inf, 1]], dtype=np.float32))
    assert np.asarray(opened(tmp_path / "a.tif", holed))[0, :, 0].tolist() == [0, 0, 255]


def test_cmyk(tmp_path):
    result = opened(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    assert np.abs(np.asarray(result)[4, 4].astype(int) - RED).max() < 10


@pytest.mark.parametrize(
    "mode, clear, solid", [("RGBA", (9, 9, 9, 0), (255, 0, 0, 255)), ("LA", (9, 0), (77, 255))]
)
def test_alpha_is_laid_on_white(tmp_path, mode, clear, solid):
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), solid)
    result = opened(tmp_path / "a.png", image)
    assert result.getpixel((0, 0)) == WHITE
    assert result.getpixel((1, 0)) == (RED if mode == "RGBA" else (77, 77, 77))


def test_half_transparent(tmp_path):
    result = opened(tmp_path / "a.png", Image.new("RGBA", (1, 1), (255, 0, 0, 128)))
    assert result.getpixel((0, 0)) == (255, 127, 127)


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    plain = opened(tmp_path / "a.png", image)
    clear = opened(tmp_path / "b.png", image, transparency=0)
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), RED]
    assert [clear.getpixel((x, 0)) for x in (0, 1)] == [WHITE, RED]


def test_rgb_with_a_transparent_colour(tmp_path):
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), RED)
    result = opened(tmp_path / "a.png", image, transparency=(1, 2, 3))
    assert [result.getpixel((x, 0)) for x in (0, 1)] == [WHITE, RED]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"save_all": True, "append_images": frames[1:]}
    result = opened(tmp_path / f"a.{suffix}", frames[0], **options)
    assert np.abs(np.asarray(result)[4, 4].astype(int) - RED).max() < 10


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    path = tmp_path / "a.jpg"
    picture(0).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert open_image(path).size == (8, 6)


def test_a_camera_file_of_two_pictures_is_jpeg(root):
    path = root / "train" / "positive" / "phone.jpg"
    picture(5).save(path, format="MPO", save_all=True, append_images=[picture(6)])
    assert Image.open(path).format == "MPO"
    assert scan(root).ok and open_image(path).size == (8, 6)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("none.png", None, "unreadable"),
        ("empty.png", b"", "empty"),
        ("text.png", b"hello", "text"),
        ("cut.png", encoded("PNG")[:-30], "truncated"),
        ("bomb.png", png_with_header(50_000, 50_000), "oversized"),
    ],
)
def test_open_image_names_the_file_and_the_mend(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.*{words}.*remove"):
        open_image(tmp_path / name)


def test_the_limit_of_pixels_is_checked_before_decoding(tmp_path, monkeypatch):
    path = write(tmp_path / "a.png", picture(0, (20, 10)))
    assert open_image(path, max_pixels=200).size == (20, 10)
    monkeypatch.setattr(images, "_as_rgb", lambda image: pytest.fail("decoded"))
    with pytest.raises(InputError, match="20 x 10 pixels, more than 199"):
        open_image(path, max_pixels=199)


# scan: bad files

BAD_FILES = {
    "empty.png": (b"", "empty"),
    "text.png": (b"not an image\n", "misnamed"),
    "page.jpg": (b"<!DOCTYPE html><html></html>", "misnamed"),
    "phone.jpeg": (b"\0\0\0\x18ftypheic" + b"\0" * 40, "misnamed"),
    "paper.PNG": (b"%PDF-1.7\n\0", "misnamed"),
    "binary.bmp": (bytes(range(256)), "misnamed"),
    "icon.png": (encoded("ICO"), "misnamed"),
    "png.jpg": (encoded("PNG"), "misnamed"),
    "jpeg.png": (encoded("JPEG"), "misnamed"),
    "gif.webp": (encoded("GIF"), "misnamed"),
    "cut.png": (encoded("PNG")[:2000], "truncated"),
    "cut.jpg": (encoded("JPEG")[:-400], "truncated"),
    "head.jpg": (encoded("JPEG")[:100], "truncated"),
    "cut.webp": (encoded("WEBP")[:-100], "truncated"),
    "cut.gif": (encoded("GIF")[:-100], "truncated"),
    "head.gif": (encoded("GIF")[:40], "truncated"),
    "cut.bmp": (encoded("BMP")[:-100], "truncated"),
    "cut.tiff": (encoded("TIFF")[:-100], "truncated"),
    "short.png": (b"\x89PNG\r\n\x1a\n", "truncated"),
    "damaged.png": (
        encoded("PNG")[:3000] + b"\xff" * 50 + encoded("PNG")[3050:],
        "unreadable",
    ),
    "bomb.png": (png_with_header(50_000, 50_000), "oversized"),
    "large.png": (png_with_header(9_500, 9_500), "oversized"),
    "big.gif": (b"GIF89a\xff\xff\xff\xff" + encoded("GIF")[10:], "oversized"),
}


@pytest.mark.parametrize("name, content, kind", [(n, *v) for n, v in BAD_FILES.items()])
def test_each_bad_file_is_listed_and_skipped_when_asked(root, name, content, kind, recwarn):
    sound = load_dataset(root)
    path = root / "train" / "positive" / name
    path.write_bytes(content)
    report = scan(root)
    assert found(report) == [(kind, f"train/positive/{name}")]
    assert not report.ok and set(report.problems["severity"]) == {"error"}
    assert len(report.images) == 18
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    with pytest.raises(InputError) as error:
        load_dataset(root)
    for words in (kind, name, "skip_bad=True"):
        assert words in str(error.value)
    skipped = load_dataset(root, skip_bad=True)
    assert skipped.ids == sound.ids and skipped.fingerprint == sound.fingerprint


def test_many_bad_files_at_once(root):
    for name, (content, _) in BAD_FILES.items():
        (root / "test" / "negative" / name).write_bytes(content)
    report = scan(root, workers=3)
    expected = {(kind, f"test/negative/{name}") for name, (_, kind) in BAD_FILES.items()}
    assert set(found(report)) == expected and len(report.problems) == len(expected)
    text = report.text(limit=2)
    for kind in {kind for _, kind in BAD_FILES.values()}:
        assert f"{Counter(k for k, _ in expected)[kind]} {kind}: {KINDS[kind][1]}" in text
    assert "... and" in text
    assert len(load_dataset(root, skip_bad=True)) == 18


def test_files_too_long_to_read_are_not_read(root, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 10_000)
    path = root / "train" / "positive" / "huge.png"
    path.write_bytes(b"\0" * 10_001)
    monkeypatch.setattr(
        Path, "read_bytes", lambda p: pytest.fail("read") if p == path else p.open("rb").read()
    )
    assert found(scan(root)) == [("oversized", "train/positive/huge.png")]


def test_links_pipes_and_rights(root, tmp_path, monkeypatch):
    folder = root / "train" / "positive"
    (folder / "nowhere.png").symlink_to(tmp_path / "gone.png")
    (folder / "self.png").symlink_to(folder / "self.png")
    os.mkfifo(folder / "pipe.png")
    write(folder / "locked.png")
    (root / "train" / "lost").symlink_to(tmp_path / "gone")
    read = Path.read_bytes

    def refuse(path):
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    report = scan(root)
    names = ["locked", "nowhere", "pipe", "self"]
    expected = ["train/lost", *(f"train/positive/{name}.png" for name in names)]
    assert found(report) == [("unreadable", path) for path in expected]
    assert "Permission denied" in report.text()


def test_a_folder_without_rights_is_listed(root, monkeypatch):
    entries = scanning._entries

    def refuse(folder):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return entries(folder)

    (root / "train" / "locked").mkdir()
    monkeypatch.setattr(scanning, "_entries", refuse)
    assert ("unreadable", "train/locked") in found(scan(root))


def test_loops_of_links_end(root):
    (root / "train" / "positive" / "loop").symlink_to(root / "train")
    (root / "train" / "negative" / "up").symlink_to(root)
    report = scan(root)
    assert found(report) == [("stray", "train/negative/up"), ("stray", "train/positive/loop")]
    assert report.ok and len(report.images) == 18


def test_linked_images_and_class_folders_are_read(root, tmp_path):
    moved = tmp_path / "elsewhere"
    (root / "train" / "positive").rename(moved)
    (root / "train" / "positive").symlink_to(moved)
    extra = write(tmp_path / "extra.png")
    (moved / "link.png").symlink_to(extra)
    assert len(load_dataset(root)) == 19


def test_names_with_spaces_unicode_and_capitals(root):
    names = [
        "a b.png",
        "ünï 雪.JPG",
        "👩‍🚀.Png",
        "narrow\u202fspace.jpeg",
        "line\nbreak.png",
        "two.dots.webp",
    ]
    for name in names:
        write(root / "train" / "positive" / name)
    dataset = load_dataset(root)
    for name in names:
        assert dataset.open(f"train/positive/{name}").size == (8, 6)
    again = ScanReport.from_json(scan(root).to_json())
    assert set(again.images.index) == set(dataset.ids)


def test_a_name_that_is_not_utf8_is_listed(root):
    name = os.fsencode(root / "train" / "positive") + b"/caf\xe9.png"
    shutil.copy(root / "train" / "positive" / "000.png", name)
    report = scan(root)
    assert found(report) == [("misnamed", "train/positive/caf\\udce9.png")]
    assert ScanReport.from_json(report.to_json()).problems.equals(report.problems)
    assert report.text().encode("utf-8")
    assert len(load_dataset(root, skip_bad=True)) == 18


def test_a_line_break_in_a_name_does_not_break_the_report(root):
    (root / "train" / "positive" / "a\nerror: 99 fake.png").write_bytes(b"")
    assert "a\\nerror: 99 fake.png" in scan(root).text()


# scan: what is where


def test_litter_is_ignored(root):
    for name in [
        ".DS_Store",
        ".hidden/a.png",
        "train/.DS_Store",
        "train/positive/Thumbs.db",
        "train/positive/._000.png",
        "train/.ipynb_checkpoints/a.png",
        "test/desktop.ini",
        "README.md",
        "objects/fist.svg",
        "objects/a.png",
        "train/__MACOSX/positive/a.png",
    ]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"litter")
    assert scan(root).problems.empty


def test_strays_are_told(root):
    write(root / "train" / "loose.png")
    (root / "train" / "positive" / "notes.txt").write_text("")
    (root / "train" / "positive" / "photo.heic").write_text("")
    (root / "train" / "odd").mkdir()
    write(root / "Validation" / "positive" / "a.png")
    report = scan(root)
    paths = [
        "Validation",
        "train/loose.png",
        "train/odd",
        "train/positive/notes.txt",
        "train/positive/photo.heic",
    ]
    assert found(report) == [("stray", path) for path in paths]
    assert report.ok and "name it val" in report.text()
    assert len(load_dataset(root)) == 18


def test_images_that_lie_deeper_are_told_with_their_number(root):
    for number in range(3):
        write(root / "train" / "positive" / "more" / "most" / f"{number}.png")
    report = scan(root)
    assert found(report) == [("nested", "train/positive/more")] and not report.ok
    assert "images: 3" in report.text()
    assert len(load_dataset(root, skip_bad=True)) == 18


def test_missing_classes(root):
    shutil.rmtree(root / "test" / "positive")
    (root / "val" / "positive" / "000.png").write_bytes(b"")
    (root / "val" / "positive" / "001.png").unlink()
    report = scan(root)
    rows = report.problems[report.problems["kind"] == "missing class"]
    assert list(zip(rows["path"], rows["detail"], strict=True)) == [
        ("test/", "positive"),
        ("val/", "positive"),
    ]
    assert report.counts.loc["test"].to_dict() == {"negative": 3, "positive": 0}


def test_duplicates_across_and_within_splits(root):
    train, val, test = (root / split / "positive" for split in ("train", "val", "test"))
    shutil.copy(test / "000.png", train / "copy.png")
    Image.open(val / "000.png").save(train / "recoded.bmp")  # other bytes, the same pixels
    shutil.copy(test / "001.png", val / "copy.png")
    shutil.copy(test / "002.png", root / "train" / "negative" / "copy.png")
    shutil.copy(train / "000.png", train / "twin.png")
    report = scan(root)
    across = [
        "train/negative/copy.png",
        "train/positive/copy.png",
        "train/positive/recoded.bmp",
        "val/positive/copy.png",
    ]
    assert found(report, "duplicate across splits") == across
    assert found(report, "duplicate") == ["train/positive/twin.png"]
    assert report.ok and len(report.problems) == 5
    assert "same as test/positive/002.png, under another label" in report.text()
    assert set(across) <= set(load_dataset(root).ids)
    skipped = load_dataset(root, skip_bad=True)
    assert not set(across) & set(skipped.ids) and "train/positive/twin.png" in skipped.ids
    assert len(skipped) == 19


def test_counts_and_text(make_root):
    root = make_root({"train": 3, "test": 2}, classes=("Sad", "awe"))
    write(root / "train" / "sadness" / "more.png")
    report = scan(root)
    assert report.labels == MIKELS.labels and report.folders == ("Sad", "awe", "sadness")
    assert report.counts.loc["train", "sadness"] == 4 and report.counts.loc["test", "awe"] == 2
    assert report.counts.to_numpy().sum() == 11
    assert "11 sound images" in report.text() and "no val/" in report.text()
    assert len(found(report, "missing class")) == 12


# the root


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda r: None, "no such folder"),
        (lambda r: r.write_bytes(b""), "is a file"),
        (lambda r: r.mkdir(), "is empty"),
        (lambda r: write(r / "anger" / "a.png"), "class folders but no train/"),
        (lambda r: write(r / "test" / "anger" / "a.png"), "has no train/; wanted"),
        (lambda r: write(r / "Train" / "anger" / "a.png"), "rename it to train"),
        (lambda r: write(r / "training" / "anger" / "a.png"), "rename it to train"),
        (lambda r: (r / "train" / "anger").mkdir(parents=True), "no image in a class folder"),
        (lambda r: write(r / "train" / "a.png"), "found: train/a.png .*in no class folder"),
    ],
)  # fmt: skip
def test_what_is_no_data_set(tmp_path, build, words):
    root = tmp_path / "my data"
    build(root)
    for call in (scan, load_dataset, listing_fingerprint):
        with pytest.raises(InputError, match=f"my data.*{words}"):
            call(root)


def test_a_split_folder_given_as_root_names_the_one_above(root):
    with pytest.raises(InputError, match=f"itself the train split.*{root}$"):
        scan(root / "train")


def test_without_test_images_loading_names_the_mend(make_root):
    root = make_root({"train": 3, "val": 2})
    report = scan(root)
    assert found(report) == [("missing split", "test/")] and not report.ok
    for skip_bad in (False, True):
        with pytest.raises(InputError, match="no images in test/: put some there"):
            load_dataset(root, skip_bad=skip_bad)


def test_a_split_of_bad_files_alone_cannot_be_skipped(root):
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no usable image is left for test"):
        load_dataset(root, skip_bad=True)


def test_folders_outside_the_label_set(root):
    with pytest.raises(InputError, match="'negative', 'positive' names no label of 'ekman'"):
        load_dataset(root, label_set=EKMAN)
    with pytest.raises(InputError, match="names no label"):
        scan(root, label_set=EKMAN)


def test_bad_arguments(root):
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(InputError, match="val_fraction"):
            load_dataset(root, val_fraction=fraction)
    with pytest.raises(InputError, match="workers"):
        scan(root, workers=0)


# labels


def test_spellings_of_one_emotion_are_merged(make_root):
    root = make_root({"train": 2, "val": 1, "test": 1}, classes=("Sad", "ANGER", "content", "awe"))
    write(root / "test" / "sadness" / "other.png")
    dataset = load_dataset(root)
    assert dataset.label_set is MIKELS
    assert Counter(dataset.labels) == {"sadness": 5, "anger": 4, "contentment": 4, "awe": 4}
    assert "train/Sad/000.png" in dataset.ids
    first = dataset.ids.index("train/Sad/000.png")
    assert dataset.label_index.dtype == np.int64
    assert dataset.label_index[first] == MIKELS.labels.index("sadness")


def test_other_classes_make_a_label_set_of_their_own(make_root):
    root = make_root(classes=("Dogs", "cats"))
    write(root / "test" / "dogs" / "more.png")
    dataset = load_dataset(root)
    assert len(dataset.label_set) == 2 and dataset.label_set.name == "custom"
    assert sorted(Counter(dataset.labels).values()) == [9, 10]


# without val/


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_stratified_split(classes, fraction, seed, shuffler):
    pairs = [
        (f"train/{label}/{n}", label) for label, count in classes.items() for n in range(count)
    ]
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


def test_stratified_split_follows_the_seed():
    ids = [f"train/a/{n}" for n in range(100)]
    drawn = [stratified_split(ids, ["a"] * 100, 0.1, seed) for seed in range(3)]
    assert [len(ids) for ids in drawn] == [10, 10, 10] and len(set(drawn)) == 3


def test_val_is_set_apart_from_train_where_there_is_none(make_root):
    root = make_root({"train": 20, "test": 3})
    dataset = load_dataset(root)
    val = dataset.split("val")
    assert Counter(val.labels) == {"negative": 2, "positive": 2}
    assert all(image.startswith("train/") for image in val.ids)
    assert Counter(dataset.table["split"]) == {"train": 36, "val": 4, "test": 6}
    assert load_dataset(root).split("val").ids == val.ids
    assert load_dataset(root, seed=1).split("val").ids != val.ids
    assert load_dataset(root, seed=1).fingerprint != dataset.fingerprint
    assert len(load_dataset(root, val_fraction=0.5).split("val")) == 20


def test_twins_are_not_parted_by_the_split(make_root):
    root = make_root({"train": 4, "test": 1})
    for path in list((root / "train").rglob("*.png")):
        shutil.copy(path, path.with_name(f"twin {path.name}"))
    for seed in range(5):
        table = load_dataset(root, val_fraction=0.4, seed=seed).table
        splits = {}
        for image, split in table["split"].items():
            splits.setdefault(image.replace("twin ", ""), set()).add(split)
        assert all(len(found) == 1 for found in splits.values())
        assert Counter(table["split"]) == {"train": 8, "val": 8, "test": 2}


def test_too_few_images_for_val(make_root):
    with pytest.raises(InputError, match="no usable image is left for val"):
        load_dataset(make_root({"train": 1, "test": 1}))


# metadata.csv


def metadata(root, rows):
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)


def test_metadata_is_joined(root):
    columns = ["file", "split", "label", "cue", "v"]
    rows = [
        ("train/positive/000.png", "train", "Positive", "NA", 1.5),
        ("./test/negative/001.png", "test", "neg", 'a, "b"\nc', None),
        ("train/positive/gone.png", "val", "odd", "x", 2),
    ]
    metadata(root, [dict(zip(columns, row, strict=True)) for row in rows])
    dataset = load_dataset(root)
    assert list(dataset.table.columns) == ["split", "label", "cue", "v"] and len(dataset) == 18
    assert dataset.table.loc["train/positive/000.png", "cue"] == "NA"
    assert dataset.table.loc["train/positive/000.png", "v"] == 1.5
    assert dataset.table.loc["test/negative/001.png", "cue"] == 'a, "b"\nc'
    assert dataset.table["cue"].isna().sum() == 16 and dataset.table["v"].isna().sum() == 17
    report = scan(root)
    assert found(report) == [("metadata", "metadata.csv"), ("metadata", "train/positive/gone.png")]
    assert report.ok and "no row for 16 images, the first test/negative/000.png" in report.text()


@pytest.mark.parametrize("column, text", [("split", "val"), ("label", "neg"), ("label", "odd")])
def test_metadata_that_contradicts_the_folders(root, column, text):
    metadata(root, [{"file": "train/positive/000.png", column: text, "cue": "x"}])
    report = scan(root)
    assert found(report, "metadata error") == ["train/positive/000.png"] and not report.ok
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=f"000.png.*{column} '{text}'"):
            load_dataset(root, skip_bad=skip_bad)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "cannot be read"),
        (b"name,cue\na,b\n", "has the columns name, cue"),
        (b"file,cue\n,b\n", "row 1 has no `file`"),
        (b"file,cue\na,b\na,c\n", "more than one row for a"),
        (b"file,cue\na,\xff\xfe\n", "cannot be read"),
        (b'file,cue\na,"b\n', "cannot be read"),
    ],
)
def test_unusable_metadata(root, content, words):
    (root / "metadata.csv").write_bytes(content)
    report = scan(root)
    assert found(report) == [("metadata error", "metadata.csv")]
    assert words in report.text()
    for skip_bad in (False, True):
        with pytest.raises(InputError, match=f"metadata.csv.*{words}"):
            load_dataset(root, skip_bad=skip_bad)


def test_metadata_saved_by_a_spreadsheet(root):
    (root / "metadata.csv").write_bytes(
        "file,cue\r\ntest/positive/000.png,Glück\r\n".encode("utf-8-sig")
    )
    assert load_dataset(root).table.loc["test/positive/000.png", "cue"] == "Glück"


# the scan kept


def test_the_report_survives_a_trip_through_json(root):
    (root / "train" / "positive" / "bad.png").write_bytes(b"")
    report = scan(root)
    again = ScanReport.from_json(report.to_json())
    assert again.text() == report.text() and again.ok == report.ok
    pd.testing.assert_frame_equal(again.images, report.images)
    pd.testing.assert_frame_equal(again.problems, report.problems)
    assert (again.listing, again.labels, again.folders) == (
        report.listing,
        report.labels,
        report.folders,
    )
    clean = ScanReport.from_json(scan(root / ".." / "data").to_json())
    assert clean.listing == report.listing


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"format": "emokd-scan-0"}', '{"format": "emokd-scan-1"}']
)
def test_what_is_no_saved_scan(text):
    with pytest.raises(InputError, match="not a saved scan"):
        ScanReport.from_json(text)


def test_a_saved_scan_of_another_shape_is_refused(root):
    data = json.loads(scan(root).to_json())
    for changes in ({"images": [["a"]]}, {"problems": [["odd kind", "a", "b"]]}, {"labels": None}):
        with pytest.raises(InputError, match="not a saved scan"):
            ScanReport.from_json(json.dumps(data | changes))


def test_a_scan_passed_in_saves_the_second(root, monkeypatch):
    report = scan(root)
    once = load_dataset(root)
    monkeypatch.setattr(scanning, "read_file", lambda path: pytest.fail("read again"))
    again = load_dataset(root, report=ScanReport.from_json(report.to_json()))
    assert again.fingerprint == once.fingerprint
    pd.testing.assert_frame_equal(again.table, once.table)


def test_a_stale_scan_is_refused(root):
    report = scan(root)
    write(root / "train" / "positive" / "new.png")
    with pytest.raises(InputError, match="changed since"):
        load_dataset(root, report=report)


def test_listing_fingerprint(root):
    before = listing_fingerprint(root)
    assert before == scan(root).listing == listing_fingerprint(str(root))
    seen = {before}
    path = root / "train" / "positive" / "000.png"
    os.utime(path, ns=(1, 1))
    seen.add(listing_fingerprint(root))
    path.write_bytes(b"")
    os.utime(path, ns=(1, 1))
    seen.add(listing_fingerprint(root))
    path.rename(path.with_name("renamed.png"))
    seen.add(listing_fingerprint(root))
    (root / "metadata.csv").write_text("file\n")
    seen.add(listing_fingerprint(root))
    (path.parent / "notes.txt").write_text("")
    seen.add(listing_fingerprint(root))
    assert len(seen) == 6


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
    expected = Image.open(root / ids[0])
    assert np.array_equal(chosen.open(ids[0]), expected)


def test_dataset_refuses_what_it_does_not_have(root):
    dataset = load_dataset(root)
    with pytest.raises(InputError, match="split 'dev'"):
        dataset.split("dev")
    for call in (dataset.open, lambda image: dataset.select([image])):
        with pytest.raises(InputError, match="no image 'train/none.png'"):
            call("train/none.png")
    with pytest.raises(InputError, match="twice"):
        dataset.select([dataset.ids[0]] * 2)
    with pytest.raises(InputError, match="no image"):
        dataset.split("train").open(dataset.split("test").ids[0])


def test_nothing_is_decoded_before_it_is_opened(root, monkeypatch):
    dataset = load_dataset(root, report=scan(root))
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("opened"))
    assert len(dataset.split("train").select(dataset.split("train").ids[:3])) == 3


def test_fingerprint_is_of_the_content_not_the_place(root, tmp_path):
    dataset = load_dataset(root)
    copy = tmp_path / "copy"
    copy.mkdir()
    files = [path for path in root.rglob("*") if path.is_file()]
    random.Random(0).shuffle(files)
    for path in files:
        target = copy / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    same = load_dataset(copy)
    assert same.fingerprint == dataset.fingerprint and same.ids == dataset.ids
    assert same.split("train").fingerprint == dataset.split("train").fingerprint
    seen = {dataset.fingerprint, dataset.split("train").fingerprint}
    seen.add(dataset.select(dataset.ids[::-1]).fingerprint)
    (copy / "val" / "positive" / "000.png").rename(copy / "val" / "positive" / "other.png")
    seen.add(load_dataset(copy).fingerprint)
    write(copy / "val" / "positive" / "other.png")
    seen.add(load_dataset(copy).fingerprint)
    assert len(seen) == 5
    assert dataset.select(dataset.ids).fingerprint == dataset.fingerprint


def test_memory_of_a_scan_does_not_grow_with_the_images(tmp_path):
    """40 images of 16 MB each, decoded: 640 MB, of which two at a time are held."""
    for number in range(10):
        for split in ("train", "test"):
            for label in ("negative", "positive"):
                flat = Image.new("RGB", (2000, 2000), (number, len(split), len(label)))
                write(tmp_path / split / label / f"{number}.png", flat, compress_level=1)
    code = (
        "import resource, sys; from emokd_utils.scan import scan\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert len(scan(sys.argv[1], workers=2).images) == 40\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250_000  # kilobytes


def test_resplit_draws_anew_within_classes_and_keeps_copies_together(make_root):
    root = make_root({"train": 12, "val": 4, "test": 4})
    shutil.copy(root / "train/negative/000.png", root / "train/negative/copy.png")
    whole = load_dataset(root)
    drawn = [whole.resplit(seed) for seed in range(8)]
    for data in drawn:
        assert data.ids == whole.ids and data.labels == whole.labels
        counts = data.table.groupby(["label", "split"]).size()
        assert counts["positive"].to_dict() == {"test": 5, "train": 12, "val": 3}
        assert counts["negative", "test"] in (5, 6), "a copy comes on top"
        pair = data.table.loc[["train/negative/000.png", "train/negative/copy.png"], "split"]
        assert pair.nunique() == 1
    assert len({data.fingerprint for data in [whole, *drawn]}) == 9
    assert len({tuple(data.table["split"]) for data in drawn}) > 4
    assert whole.resplit(3).fingerprint == drawn[3].fingerprint
    with pytest.raises(InputError, match=r"test 0.6 and val 0.4"):
        whole.resplit(0, test=0.6, val=0.4)
