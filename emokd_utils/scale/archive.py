"""A run that travels: one archive of predictions, features, gates, costs and thumbnails.

``export`` writes it where the models are; ``install`` checks it elsewhere and puts it into
``runs/``, where `imported` opens it. A head or a gate is still trained there in seconds, from the
features; what needs the VLM's or the vision model's weights says so in one sentence.

    README.txt, manifest.json       what this is; size and SHA-256 of every member
    run.json                        profile, the data set's table, what the keys are made of
    <kind>-<key>/                   artefacts, as in a run's folder; of a model only how it was made
    pictures/<hash of the id>.webp  thumbnails, or the originals

An archive is untrusted: only such names are read, sizes are counted while reading, nothing is
unpickled, and what is unpacked is opened by this library's own loaders before it is given its
place. That its answers are those of the models it names is its sender's word.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import json
import os
import re
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from .. import __version__
from ..costs import EMOVLM_KD, TOGETHER, VLM_ALONE, CostRow, Latency, cost_table
from ..data import ImageDataset
from ..distillation import HEAD_FORMAT, TrainedHead
from ..errors import InputError
from ..files import load_rows, load_tensors
from ..gating import GATE_FORMAT, TrainedGate
from ..images import FORMATS, open_image
from ..maps import CAVEATS, load_explanations
from ..predictions import Predictions
from ..profiles import project_root
from ..run.environment import asked_profile
from ..run.imported import (
    PICTURES,
    RUN,
    ImportedRun,
    Run,
    describe,
    need,
    picture_name,
    read_run,
    texts,
    untrusted_json,
)
from ..run.pipeline import Pipeline
from ..run.store import MANIFEST, Artefact, NotMadeError, Store
from ..training import as_matrix

FORMAT = "emokd-archive-1"
LISTING, README = "manifest.json", "README.txt"
MAX_MB = 2000
MAX_SIDE = 1024  # pixels of a thumbnail
HISTORY = ("epoch", "train_loss", "val_loss", "val_accuracy")  # of each epoch of a vision model

FILES = {
    "features": ("features.safetensors",),
    "teacher": ("logits.safetensors",),
    "predictions": ("predictions.csv", "predictions.json"),
    "head": ("head.safetensors",),
    "gate": ("gate.safetensors",),
    "costs": ("costs.csv",),
    "explanations": ("maps.safetensors",),
    "reasons": ("reasons.json",),
    "adapter": ("tuning.json",),
    "vision": ("model.json",),
}
"""Stage -> the files of its artefacts that travel, beside their manifest."""

_MAX_BYTES = {".json": 64 * 10**6, ".csv": 256 * 10**6}
_MAX_DIRECTORY = 64 * 2**20  # bytes of the list of members at the archive's end
_MAX_WIDTH, _MAX_CELLS = 2**14, 256  # of a head's input; of an explanation, a side
_ARTEFACT = re.compile(rf"({'|'.join(FILES)})(-[a-z0-9_.-]{{1,80}})?-[0-9a-f]{{16}}")
_PICTURE = re.compile(rf"[0-9a-f]{{32}}({'|'.join(map(re.escape, FORMATS))})")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?")


# ---------------------------------------------------------------------------------------- export


def export(
    pipeline: Pipeline,
    path: str | os.PathLike,
    seeds: Iterable[int] = (0,),
    *,
    pictures: str = "thumbnails",
    side: int = 256,
    max_mb: float = MAX_MB,
    only_kept: bool = False,
) -> Path:
    """Write what a pipeline has kept for some seeds as a .zip; the same inputs give the same bytes.

    Explanations and reasons of the first seed, which the lessons show and a run does not make, are
    made here if need be (some thousand passes of the VLM), unless only_kept.

    pictures: 'thumbnails' (WebP, longer side at most `side` pixels, without metadata), 'originals'
    (byte by byte, with the metadata in them) or 'none'. max_mb: 10^6 bytes unpacked, at most.

    Raises NotMadeError where something that `Pipeline.predictions` needs is not kept, and
    InputError for another suffix, a run that was itself imported, or more than max_mb.
    """
    path, seeds = Path(path), tuple(seeds)
    if path.suffix != ".zip":
        raise InputError(f"{path} is no archive: give a name that ends in .zip")
    if isinstance(pipeline, ImportedRun):
        raise InputError(f"{pipeline.folder.name} was imported: pass on the archive it came from")
    if pictures not in PICTURES or not 1 <= side <= MAX_SIDE:
        raise InputError(
            f"pictures is {pictures!r} and side {side}: choose one of {', '.join(PICTURES)}, and 1 "
            f"to {MAX_SIDE} pixels"
        )
    if not only_kept:
        pipeline.kept().predictions(seeds[0])  # or NotMadeError
        pipeline.explanations(seeds[0]), pipeline.reasons(seeds[0])
    source = pipeline.kept()
    listing: dict[str, dict] = {}
    left = max_mb * 1e6
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(temporary, "w") as file:
            members = _results(source, seeds, pictures)
            images = _pictures(source.dataset, pictures, side, pipeline.progress)
            for name, content in itertools.chain(members, images):
                listing[name] = {
                    "size": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
                left -= len(content)
                if left < 0:
                    raise InputError(
                        f"the run is larger than {max_mb:g} MB: leave the images out (--no-images), "
                        "make them smaller (--pixels) or raise the bound (--max-mb)"
                    )
                _write(file, name, content)
            about = {"format": FORMAT, "version": __version__, "members": listing}
            _write(file, LISTING, json.dumps(about, indent=1).encode())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    packed = name.startswith("pictures/")
    info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    file.writestr(info, content)


def _results(
    pipeline: Pipeline, seeds: tuple[int, ...], pictures: str
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member but the pictures, by name."""
    folders = _kept(pipeline, seeds)
    yield README, _readme(pipeline, seeds, pictures).encode()
    for folder in folders:
        names = FILES[folder.name.partition("-")[0]]
        manifest = json.loads((folder / MANIFEST).read_bytes())
        manifest["files"] = {name: manifest["files"][name] for name in names}
        yield f"{folder.name}/{MANIFEST}", json.dumps(manifest, indent=1).encode()
        yield from ((f"{folder.name}/{name}", (folder / name).read_bytes()) for name in names)
    yield RUN, describe(pipeline, seeds, pictures)


def _kept(pipeline: Pipeline, seeds: tuple[int, ...]) -> list[Path]:
    """The artefacts behind what a pipeline that makes nothing can give, by name."""
    found: dict[str, Path] = {}
    step = pipeline.store.step

    def noted(kind: str, *more: Any, **options: Any) -> Artefact:
        artefact = step(kind, *more, **options)
        if kind.partition("-")[0] in FILES:
            found[artefact.key] = artefact.folder
        return artefact

    pipeline.store.step = noted
    asked = [functools.partial(pipeline.zero_shot, "generate")]
    for seed in seeds:
        pipeline.predictions(seed)
        asked.append(functools.partial(pipeline.tuned, seed, "generate"))
        more = (pipeline.costs, pipeline.explanations, pipeline.reasons)
        asked += [functools.partial(ask, seed) for ask in more]
    for ask in asked:
        with contextlib.suppress(NotMadeError):
            ask()
    # Heads and gates of other settings on the same inputs, as the lessons train them.
    for pattern, inputs in (("head-*", ("features", "teacher")), ("gate-*", ("first", "vlm"))):
        for folder in sorted(pipeline.folder.glob(pattern)):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                known = json.loads((folder / MANIFEST).read_bytes())
                of = {known["inputs"][name] for name in inputs if name in known["inputs"]}
                if of <= found.keys() and known["inputs"]["seed"] in seeds:
                    noted(known["kind"], known["inputs"], None, lambda at: at)
    return sorted(found.values())


def _pictures(
    dataset: ImageDataset, pictures: str, side: int, progress: bool
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each picture, by name."""

    def one(image: str) -> bytes:
        if pictures == "originals":
            return (dataset.root / image).read_bytes()
        thumbnail = dataset.open(image)
        thumbnail.thumbnail((side, side), Image.Resampling.LANCZOS)
        thumbnail.info = {}  # no colour profile, no EXIF, no XMP
        buffer = io.BytesIO()
        thumbnail.save(buffer, "WEBP", quality=80, method=4)
        return buffer.getvalue()

    images = {} if pictures == "none" else {picture_name(k, pictures): k for k in dataset.ids}
    order = sorted(images)
    bar = tqdm(total=len(order), desc="pictures", unit="image", disable=not (progress and order))
    with bar, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(order), 256):
            some = order[start : start + 256]
            yield from zip(some, pool.map(one, [images[name] for name in some]), strict=True)
            bar.update(len(some))


def _readme(pipeline: Pipeline, seeds: tuple[int, ...], pictures: str) -> str:
    about = {
        "thumbnails": "thumbnails of its images, without their metadata",
        "originals": "its original images, with whatever metadata is inside them",
        "none": "none of its images",
    }[pictures]
    return f"""A run of EmoVLM-KD: results, to be worked from without the models that gave them.

Data set {pipeline.root.resolve().name} ({len(pipeline.dataset)} images), profile {pipeline.profile.name}, \
seed(s) {", ".join(map(str, seeds))}, emokd_utils {__version__}.

In it are predictions, visual features, the vision model's logits, heads, gates; costs, explanations
and the VLM's reasons where they were made; the data set's table and {about}.
Not in it are the weights of the VLM, its adapter and the vision model. Nothing in it is a program.

    python -m emokd_utils import ARCHIVE.zip
    EMOKD_RUN=ARCHIVE jupyter lab notebooks     (every Pipeline() then opens this run)

Images, small ones too, labels and captions may be subject to the data set's terms: pass them on only
where those allow it. `python -m emokd_utils export --no-images` leaves the images out.
"""


# ---------------------------------------------------------------------------------------- import


def install(
    archive: str | os.PathLike,
    runs: str | os.PathLike | None = None,
    name: str | None = None,
    max_mb: float = MAX_MB,
) -> Path:
    """Check an archive that `export` wrote and install it as ``<runs>/<name>``; returns that folder.

    name: by default the archive's, without .zip. max_mb: 10^6 bytes, packed and unpacked, at most.

    Raises InputError, in one sentence and with nothing installed, for an archive that is damaged,
    too large, of another version or not of this form, and where the name is taken or unusable.
    """
    archive, runs = Path(archive), project_root() / "runs" if runs is None else Path(runs)
    name = archive.stem if name is None else name
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a run: give one of letters, digits and _.-")
    if not archive.is_file() or (runs.exists() and not runs.is_dir()):
        raise InputError(f"{archive} must be a file and {runs} a folder")
    target = runs / name
    if os.path.lexists(target):
        raise InputError(f"{target} is there already: choose another name (--name) or remove it")
    with archive.open("rb") as file:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".importing-", dir=runs) as scratch:
            fresh = Path(scratch) / "run"
            try:
                _unpack(file, fresh, int(max_mb * 1e6))
                _check(fresh, Path(scratch))
                os.rename(fresh, target)
            except Exception as error:  # hostile bytes make many kinds of errors
                said = str(error) if isinstance(error, InputError) else repr(error)
                said = "".join(c if c.isprintable() else " " for c in said)[:400]
                raise InputError(
                    f"{archive.name} is refused and nothing is installed: {said}"
                ) from error
    return target


def _unpack(file: BinaryIO, to: Path, limit: int) -> None:
    """Write the members, each as the manifest says, into a new folder."""
    _check_directory(file, limit)
    with zipfile.ZipFile(file) as members:
        for info in members.infolist():
            _check_member(info)
        infos = {info.filename: info for info in members.infolist()}
        if len(infos) < len(members.infolist()):
            raise InputError("a name comes twice in it")
        if sum(info.file_size for info in infos.values()) > limit:
            raise InputError(f"it unpacks to more than {limit / 1e6:g} MB (--max-mb)")
        if LISTING not in infos or RUN not in infos:
            raise InputError(f"it has no {LISTING} or no {RUN}")
        to.mkdir()
        left = limit - _extract(members, infos.pop(LISTING), to / LISTING, limit)["size"]
        about = untrusted_json((to / LISTING).read_bytes(), LISTING)
        if about["format"] != FORMAT or about["members"].keys() != infos.keys():
            raise InputError(f"its members are not those of its {LISTING}")
        for name, info in infos.items():
            found = _extract(members, info, to / name, left)
            left -= found["size"]
            if found != about["members"][name]:
                raise InputError(f"{name} is damaged (size or checksum differs)")
            if name.endswith(".json"):
                untrusted_json((to / name).read_bytes(), name)
        (to / LISTING).unlink()


def _check_directory(file: BinaryIO, limit: int) -> None:
    """Refuse a file, or a list of its members, that is too large to be read before it is read."""
    size = file.seek(0, os.SEEK_END)
    if size > limit:
        raise InputError(f"it is larger than {limit / 1e6:g} MB (--max-mb)")
    file.seek(max(0, size - 98))
    tail = file.read().rjust(98, b"\0")
    if tail[-22:-18] != b"PK\5\6" or tail[-2:] != b"\0\0":
        raise InputError("it is no zip archive, or something follows its end")
    (length,) = struct.unpack("<I", tail[-10:-6])
    if tail[-42:-38] == b"PK\6\7":  # of more than 65,535 members or 4 GB
        (place,) = struct.unpack("<Q", tail[-34:-26])
        if tail[:4] != b"PK\6\6" or place != size - 98:
            raise InputError("its list of members is not where it should be")
        (length,) = struct.unpack("<Q", tail[-58:-50])
    if length > _MAX_DIRECTORY:
        raise InputError("it has too many members")


def _check_member(info: zipfile.ZipInfo) -> None:
    """InputError for a member that `export` would not write: another name, or no plain file.

    The names are ASCII and all but one in lower case, so no two are one file on any system.
    """
    name, (folder, _, last) = info.filename, info.filename.rpartition("/")
    if _ARTEFACT.fullmatch(folder):
        expected = last in (*FILES[folder.partition("-")[0]], MANIFEST)
    elif folder == "pictures":
        expected = _PICTURE.fullmatch(last)
    else:
        expected = name in (LISTING, RUN, README)
    if not expected or info.orig_filename != name:
        raise InputError(f"{info.orig_filename[:80]!r} is not one of the files of a run")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise InputError(f"{name} is not a plain file")
    if info.flag_bits & 0x2041:
        raise InputError(f"{name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{name} is packed in an unknown way")
    if info.file_size > _MAX_BYTES.get(Path(name).suffix, info.file_size):
        raise InputError(f"{name} is too large")


def _extract(members: zipfile.ZipFile, info: zipfile.ZipInfo, to: Path, left: int) -> dict:
    """Write a member, of the size it says and at most `left` bytes; its size and SHA-256."""
    size, digest = 0, hashlib.sha256()
    to.parent.mkdir(exist_ok=True)
    with members.open(info) as packed, to.open("xb") as file:
        while part := packed.read(2**20):
            size += len(part)
            if size > min(left, info.file_size):
                raise InputError(f"{info.filename} is larger than it says")
            digest.update(part)
            file.write(part)
    return {"size": size, "sha256": digest.hexdigest()}


def _check(folder: Path, scratch: Path) -> None:
    """Open all that is in an unpacked run as the lessons will."""
    run = read_run((folder / RUN).read_bytes())
    lines: list[str] = []
    store = Store(folder, lines.append, make=False)
    for path in sorted(path for path in folder.iterdir() if _ARTEFACT.fullmatch(path.name)):
        known = untrusted_json((path / MANIFEST).read_bytes(), MANIFEST)

        def load(at: Path, stage: str = path.name.partition("-")[0]) -> None:
            try:
                _load(stage, run, scratch, at)
            except InputError as error:
                raise InputError(str(error).replace(f"{at}{os.sep}", "")) from error

        lines.clear()
        with contextlib.suppress(NotMadeError):
            if store.step(known["kind"], known["inputs"], None, load).folder == path:
                continue
        why = lines[-1] if lines else "its name is not what its key says"
        raise InputError(f"{path.name} cannot be used: {why.removeprefix('[anew] ')}")
    wanted = () if run.pictures == "none" else run.table.index
    names = {picture_name(image, run.pictures) for image in wanted}
    if names != {f"pictures/{path.name}" for path in folder.glob("pictures/*")}:
        raise InputError(f"its pictures are not those of its {len(run.table)} images")
    for name in names:
        _check_picture(folder / name, run.pictures == "thumbnails")
    opened = ImportedRun(data=folder, say=lines.append, make=False)
    for seed in run.seeds:
        opened.predictions(seed)


def _load(stage: str, run: Run, scratch: Path, at: Path) -> None:
    """Read an artefact and compare it with the data set; whatever is raised, it is not sound."""
    table, classes, file = run.table, tuple(run.label_set), at / FILES[stage][0]
    if stage in ("features", "teacher"):
        rows = load_rows(file, list(table.index))
        as_matrix(rows, stage, len(classes) if stage == "teacher" else None)
    elif stage == "predictions":
        found = Predictions.load(file)
        rows = table.loc[list(found.ids)]
        of = (found.classes, found.splits, found.labels)
        need(
            of == (classes, tuple(rows["split"]), tuple(rows["label"])),
            "predictions (of other data)",
        )
        # Only what is written again as it was has the escapes that keep formulas out of a spreadsheet.
        again = found.save(scratch / "again.csv").read_bytes()
        need(again == file.read_bytes(), "predictions (not as `Predictions.save` writes)")
    elif stage == "head":
        state, about = load_tensors(file, HEAD_FORMAT)
        width = about["in_features"]
        need(state["mean"].shape == (width,) and width <= _MAX_WIDTH, "head (of another width)")
        need(about["num_classes"] == len(classes), "head (of other classes)")
        TrainedHead.load(file)
    elif stage == "gate":
        about = load_tensors(file, GATE_FORMAT)[1]
        need(about["num_classes"] == len(classes), "gate (of other classes)")
        TrainedGate.load(file)
    elif stage == "costs":
        costs = pd.read_csv(file, index_col=0)
        like = cost_table([CostRow("", 1, 1, 1.0, Latency(1.0, 1.0, 1.0), 1.0)])
        need(costs.columns.equals(like.columns), "costs (other columns)")
        need(list(costs.index) == [VLM_ALONE, TOGETHER, EMOVLM_KD], "costs (other rows)")
        need(all(kind.kind in "if" for kind in costs.dtypes), "costs (no numbers)")
    elif stage == "explanations":
        for image, maps in load_explanations(file).items():
            need(table.loc[image, "split"] == "test", "maps (of other images)")
            for one in maps.values():
                left, top, right, bottom = one.area
                need(
                    one.values.ndim == 2 and max(one.values.shape) <= _MAX_CELLS, "maps (too large)"
                )
                need(0 <= left < right <= 1 and 0 <= top < bottom <= 1, "maps (beside the image)")
                need(np.isfinite(one.values).all(), "maps (not finite)")
                need(
                    one.method in CAVEATS and one.label in ("", *classes),
                    "maps (of an unknown kind)",
                )
    elif stage == "reasons":
        about = untrusted_json(file.read_bytes(), file.name)
        need(set(table.loc[list(about), "split"]) <= {"test"}, "reasons (of other images)")
        texts(list(about.values()), len(table))
    else:
        about = untrusted_json(file.read_bytes(), file.name)
        rows = about["history" if stage == "vision" else "log"]
        numbers = {value for row in rows for value in map(type, row.values())}
        need(numbers <= {int, float}, f"{file.name} (no numbers)")
        if stage == "vision":
            columns = [tuple(row) for row in rows]
            need(len(set(columns)) == 1 and set(HISTORY) <= set(columns[0]), "epochs")
            need(about["best_epoch"] in [row["epoch"] for row in rows], "best epoch")


def _check_picture(path: Path, thumbnail: bool) -> None:
    """InputError for a picture that is not what its name says, too large, or moves."""
    with Image.open(path, formats=[FORMATS[path.suffix]]) as image:
        if thumbnail and (max(image.size) > MAX_SIDE or image.n_frames > 1):
            raise InputError(f"{path.name} is larger than {MAX_SIDE} pixels a side, or moves")
    open_image(path)


# ------------------------------------------------------------------------------------------ commands


def main(args: Any) -> int:
    """The commands ``export`` and ``import``."""
    if args.command == "import":
        target = install(args.archive, args.runs, args.name, args.max_mb)
        run = read_run((target / RUN).read_bytes())
        known = target.parent.resolve() == (project_root() / "runs").resolve()
        print(
            f"{target}: {len(run.table)} images of {run.data} ({run.pictures}), profile "
            f"{run.profile.name}, seed(s) {', '.join(map(str, run.seeds))}\n"
            "Its form is checked; that its answers are the models' is its sender's word.\n"
            f"To work from it: EMOKD_RUN={target.name if known else target.resolve()}"
        )
        return 0
    pipeline = Pipeline(asked_profile(args), args.data, args.runs, args.skip_bad)
    seeds = range(args.seeds) if args.seeds > 1 else [args.seed]
    pictures = "originals" if args.originals else "none" if args.no_images else "thumbnails"
    path = export(
        pipeline,
        args.out,
        seeds,
        pictures=pictures,
        side=args.pixels,
        max_mb=args.max_mb,
        only_kept=args.only_kept,
    )
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, pictures: {pictures}")
    return 0
