"""Folders of images: every bad input is named, every good one opens as upright RGB."""

import io
import os
import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_run import noise, picture
from PIL import Image, PngImagePlugin

from emokd_utils.data import load_dataset, stratified_split
from emokd_utils.emotions import MIKELS
from emokd_utils.errors import InputError
from emokd_utils.images import open_image
from emokd_utils.scan import KINDS, ScanReport, scan


def make_root(root, classes=("negative", "positive"), **counts):
    """A sound data set; counts: images of each class in each split."""
    for split, count in counts.items():
        for label in classes:
            for number in range(count):
                picture(root / split / label / f"{number:03d}.png")
    return root


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "data", train=4, val=2, test=3)


def listed(report):
    """Kind and path of each problem."""
    return list(report.problems[["kind", "path"]].itertuples(index=False, name=None))


def encoded(format, start=b"", end=None, mode="RGB"):
    """A picture's bytes, with another start and up to an end."""
    buffer = io.BytesIO()
    noise(1, (64, 64)).convert(mode).save(buffer, format)
    return start + buffer.getvalue()[len(start) : end]


def opened(path, image, **options):
    image.save(path, **options)
    result = open_image(path)
    assert result.mode == "RGB"
    return np.asarray(result).astype(int)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied(tmp_path, format):
    upright = Image.new("RGB", (32, 16), "white")
    upright.paste(RED, (0, 0, 16, 8))  # the upper left quarter
    exif = Image.Exif()
    # orientation -> the inverse turn, in PIL's numbers
    for exif[0x0112], turn in {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.items():
        values = opened(tmp_path / "a", upright.transpose(turn), format=format, exif=exif)
        assert values.shape == (16, 32, 3)
        assert np.abs(values - np.asarray(upright).astype(int))[4::8, 8::16].max() < 60


def row(values, dtype=np.uint8):
    return Image.fromarray(np.array([values], dtype=dtype))


RED = (255, 0, 0)
PALETTE = row([0, 1]).convert("P")
PALETTE.putpalette([0, 0, 0, *RED])
MODES = [  # suffix, image, options of saving, red of each pixel, green of each
    ("png", row([0, 257, 128 * 257, 65535], np.uint16), {}, [0, 1, 128, 255], [0, 1, 128, 255]),
    ("png", row([(9, 9, 9, 0), (255, 0, 0, 255), (255, 0, 0, 128)]), {}, [255] * 3, [255, 0, 127]),
    ("png", row([(9, 0), (77, 255)]), {}, [255, 77], [255, 77]),
    ("png", row([(1, 2, 3), RED]), {"transparency": (1, 2, 3)}, [255, 255], [255, 0]),
    ("png", PALETTE, {}, [0, 255], [0, 0]),
    ("png", PALETTE, {"transparency": 0}, [255, 255], [255, 0]),
]


@pytest.mark.parametrize(("suffix", "image", "options", "red", "green"), MODES)
def test_every_mode_opens_as_rgb(tmp_path, suffix, image, options, red, green):
    values = opened(tmp_path / f"a.{suffix}", image, **options)[0]
    assert values[:, :2].T.tolist() == [red, green]


def test_cmyk_and_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    animated = {"save_all": True, "append_images": frames[1:]}
    files = [(suffix, frames[0], animated) for suffix in ("gif", "webp", "png", "tiff")]
    files.append(("jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), {}))
    for suffix, image, options in files:
        assert np.abs(opened(tmp_path / f"a.{suffix}", image, **options)[4, 4] - RED).max() < 10


BAD_FILES = [
    *(("empty", name, b"") for name in ("empty.png", "a\nerror: 99 fake.png")),
    ("misnamed", "page.jpg", b"<!DOCTYPE html><html></html>"),
    ("misnamed", "phone.jpeg", b"\0\0\0\x18ftypheic" + b"\0" * 40),
    ("misnamed", "png.jpg", encoded("PNG")),
    *(("truncated", f"cut.{f}", encoded(f, end=-400)) for f in ("PNG", "JPEG", "GIF", "TIFF")),
    ("unreadable", "floats.tif", encoded("TIFF", mode="F")),
    ("unreadable", "cut.webp", encoded("WEBP", end=-100)),
    ("unreadable", "bad.png", encoded("PNG", encoded("PNG", end=3000) + b"\xff" * 50)),
    ("oversized", "large.gif", encoded("GIF", b"GIF89a" + (9_100).to_bytes(2, "little") * 2)),
]
NOT_READ = "Validation/positive/a.png train/loose.png train/positive/notes.txt".split()
LITTER = """.DS_Store .hidden/a.png train/.DS_Store train/positive/Thumbs.db train/positive/._000.png
train/.ipynb_checkpoints/a.png train/positive/@eaDir/a.png test/desktop.ini README.md objects/a.png
train/notes.txt""".split()


def test_all_that_is_wrong_is_named_with_the_mend_and_left_out_when_asked(root):
    sound = load_dataset(root)
    train, folder = root / "train", root / "train" / "positive"
    for name in [*NOT_READ, *LITTER]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"not looked at")
    for _, name, content in BAD_FILES:
        (folder / name).write_bytes(content)
    shutil.copy(folder / "000.png", os.fsencode(folder) + b"/caf\xe9.png")
    picture(folder / "more" / "most" / "a.png")
    (train / "odd").mkdir()
    os.mkfifo(folder / "pipe.png")
    links = {"positive/loop": train, "lost": "no", "positive/self.png": "self.png"}
    for link, target in links.items():
        (train / link).symlink_to(target)
    expected = [(kind, f"train/positive/{name}") for kind, name, _ in BAD_FILES]
    expected += [("stray", path) for path in ("Validation", *NOT_READ[1:], "train/odd")]
    expected += [("stray", "train/positive/loop"), ("misnamed", "train/positive/caf\\udce9.png")]
    expected += [("nested", "train/positive/more"), ("unreadable", "train/lost")]
    expected += [("passed over", name.removesuffix("/a.png")) for name in LITTER[:8]]
    expected += [("empty", "train/positive/pipe.png"), ("unreadable", "train/positive/self.png")]
    report = scan(root)
    assert sorted(listed(report)) == sorted(expected) and len(report.images) == 18
    text = report.text(limit=2)
    for kind, count in Counter(kind for kind, _ in expected).items():
        assert f"{KINDS[kind][0]}: {count} {kind}: {KINDS[kind][1]}" in text
    assert "a\\nerror: 99 fake.png" in text and text.encode("utf-8") and "... and" in text
    assert "9100 x 9100 pixels, more than 80,000,000" in text and "a split?" in text
    with pytest.raises(InputError, match=r"cut\.GIF(.|\n)*skip_bad=True \(--skip-bad\)"):
        load_dataset(root)
    skipped = load_dataset(root, skip_bad=True)
    assert skipped.ids == sound.ids and skipped.fingerprint == sound.fingerprint


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_odd_files_are_read(root, tmp_path):
    folder = root / "train" / "positive"
    names = ["a b.png", "ünï 雪.JPG", "👩‍🚀.Png", "line\nbreak.png", "two.dots.webp"]
    for name in names:
        picture(folder / name)
    noise(5).save(folder / "two.jpg", "MPO", save_all=True, append_images=[noise(6)])
    for number, exif in enumerate((b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40, b"no header")):
        noise(number).save(folder / f"exif{number}.jpg", exif=b"Exif\0\0" + exif)
    picture(tmp_path / "extra.png")
    (folder / "link.png").symlink_to(tmp_path / "extra.png")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert scan(root).problems.empty
    dataset = load_dataset(root)
    assert {f"train/positive/{name}" for name in [*names, "link.png"]} < set(dataset.ids)
    assert len(dataset) == 27 and {dataset.open(image).size for image in dataset.ids} == {(8, 6)}


def test_duplicates_across_and_within_splits(root):
    train, val, test = (root / split / "positive" for split in ("train", "val", "test"))
    Image.open(val / "000.png").save(train / "recoded.bmp")  # other bytes, the same pixels
    shutil.copy(test / "001.png", val / "copy.png")
    shutil.copy(test / "002.png", root / "train" / "negative" / "copy.png")
    shutil.copy(train / "000.png", train / "twin.png")
    report = scan(root)
    across = ["test/positive/001.png", "test/positive/002.png", "val/positive/000.png"]
    expected = [("duplicate across splits", path) for path in across]
    assert listed(report) == [*expected, ("duplicate", "train/positive/twin.png")]
    assert "error" not in set(report.problems["severity"])
    assert "same as train/negative/copy.png, under another label" in report.text()
    assert report.found == "3 duplicate across splits (left out); 1 duplicate"
    dataset = load_dataset(root)
    assert not set(across) & set(dataset.ids) and "train/positive/twin.png" in dataset.ids
    for number in range(9):
        shutil.copy(train / "000.png", root / "train" / "negative" / f"gone{number}.png")
    assert ("repeated", "train/negative/gone0.png") in listed(scan(root))


def test_what_a_model_cannot_take_is_found_and_long_texts_are_read(root):
    folder, note = root / "train" / "positive", PngImagePlugin.PngInfo()
    noise(1, (1100, 5)).save(folder / "banner.png")
    noise(2, (1, 1)).save(folder / "dot.png")
    note.add_text("parameters", "a wide view of a valley, " * 100_000, zip=True)
    noise(3).save(folder / "generated.png", pnginfo=note)
    narrow = [("too narrow", f"train/positive/{name}.png") for name in ("banner", "dot")]
    assert listed(scan(root)) == narrow
    assert len(load_dataset(root, skip_bad=True)) == 19


def test_folders_of_one_class_are_told_and_a_known_release_keeps_its_classes(tmp_path):
    root = make_root(tmp_path / "data", ("joy", "col\u00e8re"), train=3, test=2)
    assert list(load_dataset(root).label_set) == ["col\u00e8re", "joy"]
    (root / "test" / "col\u00e8re").rename(root / "test" / "cole\u0300re")
    assert list(scan(root).label_set) == ["col\u00e8re", "joy"] and scan(root).found == ""
    half = make_root(tmp_path / "half", ("anger", "fear"), train=3, test=2)
    picture(half / "train" / "scared" / "a.png")
    told = "2 classes, part of ekman: anger, fear; 1 merged fear and scared into fear"
    assert scan(half).found == told and len(load_dataset(half)) == 11
    (half / "source.json").write_text('{"about": {"label_set": "mikels"}}')
    assert load_dataset(half).label_set is MIKELS


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda r: None, "No such file"),
        (lambda r: r.mkdir(), "has no train/: put the images into ROOT/train/EMOTION"),
        (lambda r: (r / "train" / "anger").mkdir(parents=True), "no image in a class folder"),
        (lambda r: picture(r / "train" / "a.png"), "found: train/a.png .*in no class folder"),
        (lambda r: picture(r / "train" / "photos" / "a.png"), "'photos'.* two classes"),
        (lambda r: make_root(r, train=3, val=2), "missing split: .* put images"),
        (lambda r: make_root(r, train=1, test=1), "no image is left for val"),
    ],
)
def test_what_is_no_data_set(tmp_path, build, words):
    build(tmp_path / "data")
    with pytest.raises(InputError, match=words):
        load_dataset(tmp_path / "data")


@given(st.lists(st.integers(1, 40), min_size=1), st.floats(0.01, 0.99), st.integers(0, 5))
def test_stratified_split(counts, fraction, seed):
    ids = [f"{label}/{number}" for label, count in enumerate(counts) for number in range(count)]
    labels = [int(image.split("/")[0]) for image in ids]
    drawn = stratified_split(ids, labels, fraction, seed)
    assert stratified_split(ids[::-1], labels[::-1], fraction, seed) == drawn
    assert list(drawn) == sorted(set(drawn) & set(ids))
    taken = Counter(int(image.split("/")[0]) for image in drawn)
    for label, count in enumerate(counts):
        assert min(1, count - 1) <= taken[label] <= count - 1
        assert abs(taken[label] - fraction * count) <= 1


def test_without_val_part_of_train_is_set_apart_and_twins_are_not_parted(tmp_path):
    root = make_root(tmp_path / "data", ("Sad", "awe"), train=20, test=3)
    report, dataset = scan(root), load_dataset(root)
    assert report.label_set.name == "part of mikels" and "46 sound images" in report.text()
    assert report.counts.loc["train", "sadness"] == 20 and "no val/" in report.text()
    assert listed(report) == []
    drawn = ("Sad/001", "Sad/006", "awe/008", "awe/013")
    assert dataset.split("val").ids == tuple(f"train/{image}.png" for image in drawn)
    shutil.copytree(root / "train" / "Sad", root / "train" / "sadness")  # another spelling
    splits = load_dataset(root).table["split"]
    assert (splits.groupby(splits.index.str.replace("sadness", "Sad")).nunique() == 1).all()
    assert Counter(splits) == {"train": 54, "val": 6, "test": 6}


def test_resplit_draws_anew_within_classes_and_keeps_copies_together(tmp_path):
    root = make_root(tmp_path / "data", train=12, val=4, test=4)
    shutil.copy(root / "train/negative/000.png", root / "train/negative/copy.png")
    whole = load_dataset(root)
    drawn = [whole.resplit(seed) for seed in range(4)]
    for data in drawn:
        assert data.ids == whole.ids and data.labels == whole.labels
        counts = data.table.groupby(["label", "split"]).size()
        assert counts["positive"].to_dict() == {"test": 5, "train": 12, "val": 3}
        pair = ["train/negative/000.png", "train/negative/copy.png"]
        assert data.table.loc[pair, "split"].nunique() == 1
    assert len({data.fingerprint for data in [whole, *drawn, whole.resplit(3)]}) == 5


def test_metadata_is_joined(root):
    text = """\ufefffile,split,label,cue,v
train/positive/000.png,train,Positive,NA,1.5
./test/negative/001.png,test,neg,"Glück, ""b""\nc",
train/positive/gone.png,val,odd,x,2"""
    (root / "metadata.csv").write_text(text, encoding="utf-8")
    dataset = load_dataset(root)
    assert dataset.table.isna().sum().to_dict() == {"split": 0, "label": 0, "cue": 16, "v": 17}
    assert dataset.table.loc["train/positive/000.png", ["cue", "v"]].tolist() == ["NA", 1.5]
    assert dataset.table.loc["test/negative/001.png", "cue"] == 'Glück, "b"\nc'
    report = scan(root)
    assert listed(report) == [("metadata", "metadata.csv"), ("metadata", "train/positive/gone.png")]
    assert "no row for 16 images, the first test/negative/000.png" in report.text()


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("metadata.csv", "file_name;cue\n.\\train\\positive\\000.png;\u00e9t\u00e9\n", "cp1252"),
        ("metadata.csv", "cue\tfile\n\u00e9t\u00e9\ttrain/positive/000.png\n", "utf-16"),
        ("train/metadata.csv", "file_name,cue\r\npositive/000.png,\u00e9t\u00e9\r\n", "utf-8-sig"),
        (
            "train/metadata.jsonl",
            '{"file_name": "positive/000.png", "cue": "\u00e9t\u00e9"}\n',
            "utf-8",
        ),
    ],
)
def test_metadata_is_taken_as_the_hub_and_spreadsheets_write_it(root, name, text, encoding):
    (root / name).write_bytes(text.encode(encoding))
    cues = load_dataset(root).table["cue"].dropna()
    assert cues.to_dict() == {"train/positive/000.png": "\u00e9t\u00e9"}


@pytest.mark.parametrize(
    "content, about, words",
    [
        (b"file,split\ntrain/positive/000.png,val", "train/positive/000.png", "split 'val'"),
        (b"file,label\ntrain/positive/000.png,neg", "train/positive/000.png", "label 'neg'"),
        (b"name,cue\na,b\n", "metadata.csv", "has the columns name, cue"),
        (b"file,cue\na,b\na,c\n", "metadata.csv", "row 2 has no `file`, or that of an earlier"),
    ],
)
def test_metadata_that_is_unusable_or_contradicts_the_folders(root, content, about, words):
    (root / "metadata.csv").write_bytes(content)
    assert ("metadata error", about) in listed(scan(root))
    with pytest.raises(InputError, match=f"metadata.csv.*{words}"):
        load_dataset(root)
    left = load_dataset(root, skip_bad=True)
    assert set(scan(root).images.index) - set(left.ids) == {about} - {"metadata.csv"}


def test_a_scan_kept_as_json_saves_the_second(root, monkeypatch):
    (root / "train" / "positive" / "bad.png").write_bytes(b"")
    report = scan(root)
    again = ScanReport.from_json(report.to_json())
    assert again.text() == report.text() and again.listing == scan(root).listing
    once = load_dataset(root, skip_bad=True)
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("opened"))
    kept = load_dataset(root, skip_bad=True, report=again)
    assert kept.fingerprint == once.fingerprint and kept.table.equals(once.table)
    picture(root / "train" / "positive" / "new.png")
    with pytest.raises(InputError, match="changed since"):
        load_dataset(root, skip_bad=True, report=again)


def test_dataset(root):
    dataset = load_dataset(root)
    assert list(dataset.ids) == sorted(dataset.ids) and len(dataset) == 18
    assert dataset.table.index.name == "id" and list(dataset.table) == ["split", "label"]
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [8, 4, 6]
    ids = ["val/positive/001.png", "test/negative/000.png"]
    chosen = dataset.select(ids)
    assert list(chosen.ids) == ids and chosen.label_index.tolist() == [1, 0]
    assert np.array_equal(chosen.open(ids[0]), Image.open(root / ids[0]))
    for call, words in (
        (lambda: load_dataset(root / "train"), "itself a split.*data$"),
        (lambda: open_image(root / "no.png"), r"data/no.png \(unreadable.*replace or remove"),
        (lambda: dataset.split("dev"), "split 'dev'"),
        (lambda: dataset.open("train/none.png"), "no image 'train/none.png'"),
        (lambda: dataset.select(["train/none.png"]), "'train/none.png' x 1"),
        (lambda: dataset.select(ids * 2), "x 2.*each once"),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_fingerprint_is_of_the_content_not_the_place(root, tmp_path):
    dataset = load_dataset(root)
    copy = load_dataset(shutil.copytree(root, tmp_path / "copy"))
    assert copy.split("train").fingerprint == dataset.split("train").fingerprint
    assert copy.select(copy.ids).fingerprint == dataset.fingerprint and copy.ids == dataset.ids
    others = [dataset, dataset.split("train"), dataset.select(dataset.ids[::-1])]
    (copy.root / "val/positive/000.png").rename(copy.root / "val/positive/other.png")
    others.append(load_dataset(copy.root))
    assert len({other.fingerprint for other in others}) == 4
