"""A run that travels: one archive of predictions, features, gates, costs and thumbnails.

``export`` writes it where the models are: what was asked of a run, and of each artefact the files
that its stage lets travel. ``install`` checks it elsewhere and puts it into ``runs/``, where
`open_run` opens it. A head or a gate is still trained there in seconds, from the features; what
needs the VLM's or the vision model's weights says so in one sentence.

    README.txt, manifest.json       what this is; size and SHA-256 of every member
    run.json                        profile, the data set's table, what the keys are made of
    <stage>-<label>-<key>/          artefacts, as in a run's folder; of a model only how it was made
    pictures/<hash of the id>.webp  thumbnails

An archive is untrusted: only such names are read, sizes are bounded, nothing is unpickled, and what
is unpacked is opened by this library's own loaders before it is given its place. That its answers
are those of the models it names is its sender's word."""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tqdm.auto import tqdm

from .. import __version__
from ..errors import InputError
from ..files import fingerprint, written_aside
from ..folders import is_litter, printable
from ..images import open_image, shrunk
from ..predictions import Predictions
from ..run.card import CARD, RunCard, need, read_card, write_card
from ..run.run import Run
from ..run.sources import ArchiveSource, picture_name
from ..run.store import CAME, MANIFEST, STAGES, NotMadeError

FORMAT = "emokd-archive-2"
LISTING, README = "manifest.json", "README.txt"
MAX_MB = 4000  # 10^6 bytes of an archive, packed and unpacked
SIDE = 256  # pixels, the longer one of a thumbnail

_ARTEFACT = r"[a-z_]+(?:-[a-z0-9_.-]{1,80})?-[0-9a-f]{16}"
_OTHER = rf"{LISTING}|{CARD}|{README}|pictures/[0-9a-f]{{32}}\.webp"
_MEMBER = re.compile(rf"{_OTHER}|{_ARTEFACT}/[a-z]+\.[a-z]+")


def export(
    run: Run,
    path: str | os.PathLike,
    seeds: Iterable[int] = (0,),
    *,
    pictures: str = "thumbnails",
    only_kept: bool = False,
) -> Path:
    """Write what a run has kept for some seeds as a .zip; the same inputs give the same bytes.
    Explanations and reasons of the first seed, which the lessons show and a run does not make, are
    made here if need be (some thousand passes of the VLM), unless only_kept. pictures: 'thumbnails'
    (WebP, longer side at most SIDE pixels) or 'none'. Raises NotMadeError where something that
    `Run.predictions` needs is not kept, and InputError for another suffix, a run that was itself
    imported, or more than MAX_MB."""
    path, seeds = Path(path), tuple(seeds)
    if path.suffix != ".zip":
        raise InputError(f"{path} is no archive: give a name that ends in .zip")
    if isinstance(run.source, ArchiveSource):
        raise InputError(f"{run.folder.name} was imported: pass on the archive it came from")
    if not only_kept:
        run.kept().predictions(seeds[0])  # or NotMadeError
        run.explanations(seeds[0]), run.reasons(seeds[0])
    listing: dict[str, dict] = {}
    left = MAX_MB * 1e6
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w") as file:
        for name, content in _members(run, seeds, pictures):
            listing[name] = _mark(content)
            left -= len(content)
            if left < 0:
                mend = "leave the images out (--no-images)"
                raise InputError(f"the run is larger than {MAX_MB} MB: {mend}")
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # without a date
        about = {"format": FORMAT, "version": __version__, "members": listing}
        file.writestr(zipfile.ZipInfo(LISTING), json.dumps(about, indent=1), zipfile.ZIP_DEFLATED)
    return path


def _mark(content: bytes) -> dict[str, int | str]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _members(run: Run, seeds: tuple[int, ...], pictures: str) -> Iterator[tuple[str, bytes]]:
    yield README, _readme(run, seeds, pictures).encode()
    for folder in travelling(run.kept(), seeds):
        manifest = json.loads((folder / MANIFEST).read_bytes())
        names = STAGES[manifest["stage"]].travels
        manifest["files"] = {name: manifest["files"][name] for name in names}
        manifest.pop(CAME, None)  # elsewhere it came with the archive
        yield f"{folder.name}/{MANIFEST}", json.dumps(manifest, indent=1).encode()
        yield from ((f"{folder.name}/{name}", (folder / name).read_bytes()) for name in names)
    yield CARD, write_card(run, seeds, pictures)
    images = {} if pictures == "none" else {picture_name(k): k for k in run.dataset.ids}
    quiet = not (run.progress and images)
    for name in tqdm(sorted(images), "pictures", unit="image", disable=quiet):
        yield name, shrunk(run.dataset.open(images[name]), SIDE, quality=80)


def travelling(run: Run, seeds: Iterable[int]) -> list[Path]:
    """The folders of the artefacts behind what a run that makes nothing can give, by name."""
    written = (lambda seed: run.zero_shot("generate"), lambda seed: run.tuned(seed, "generate"))
    run.zero_shot(), run.features()
    for seed in seeds:
        run.predictions(seed)
        for ask in (run.costs, run.explanations, run.reasons, *written):
            with contextlib.suppress(NotMadeError):
                ask(seed)
    for artefact in run.artefacts.values():
        with contextlib.suppress(NotMadeError):  # what came with the course may lie packed
            run.store.ensure(artefact)
    return sorted(a.folder for a in run.artefacts.values() if a.stage.travels and a.is_kept)


def _readme(run: Run, seeds: tuple[int, ...], pictures: str) -> str:
    about = "none of" if pictures == "none" else "thumbnails, without their metadata, of"
    return f"""A run of EmoVLM-KD: results, to be worked from without the models that gave them.

Data set {run.source.name} ({len(run.dataset)} images), profile {run.profile.name}, \
seed(s) {", ".join(map(str, seeds))}, emokd_utils {__version__}.

In it are predictions, visual features, the vision model's logits, heads, gates; costs, explanations
and the VLM's reasons where they were made; the data set's table and {about} its images.
Not in it are the weights of the VLM, its adapter and the vision model. Nothing in it is a program.

    python -m emokd_utils import ARCHIVE.zip
    EMOKD_RUN=ARCHIVE jupyter lab notebooks     (every open_run() then opens this run)

Images, small ones too, labels and captions may be subject to the data set's terms: pass them on only
where those allow it. `python -m emokd_utils export --no-images` leaves the images out.
"""


def install(archive: str | os.PathLike, runs: Path, name: str | None = None) -> Path:
    """Check an archive that `export` wrote and install it as ``<runs>/<name>``; returns that folder.
    name: by default the archive's. Raises InputError, in one sentence and with nothing installed,
    for an archive that is damaged, larger than MAX_MB, of another version or not of this form, and
    where the name is taken or unusable."""
    archive, runs = Path(archive), Path(runs)
    name = archive.stem if name is None else name
    if Path(name).name != name or name.startswith("."):
        raise InputError(f"{name!r} is no name for a run's folder: give another one (--name)")
    if not archive.is_file() or (runs.exists() and not runs.is_dir()):
        raise InputError(f"{archive} must be a file and {runs} a folder")
    target = runs / name
    if os.path.lexists(target):
        raise InputError(f"{target} is there already: choose another name (--name) or remove it")
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".importing-", dir=runs) as scratch:
        fresh = Path(scratch) / "run"
        try:
            _unpack(archive, fresh)
            _check(fresh)
            os.rename(fresh, target)
        except Exception as error:  # hostile bytes make many kinds of errors
            reason = str(error) if isinstance(error, InputError) else repr(error)
            reason = printable(reason.replace(f"{fresh}{os.sep}", ""))[:400]
            what = f"{archive.name} is refused and nothing is installed"
            raise InputError(f"{what}: {reason}") from error
    return target


def _unpack(archive: Path, to: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        sizes = {info.filename: info.file_size for info in file.infolist() if not info.is_dir()}
        if (total := sum(sizes.values()) / 1e6) > MAX_MB:
            raise InputError(f"it unpacks to {total:.0f} MB, more than the {MAX_MB} that are taken")
        # A file manager may have put a folder around it, and files of its own inside.
        inside = min((name for name in sizes if name.endswith(LISTING)), key=len, default="")
        inside = inside.removesuffix(LISTING)
        own = (name for name in sizes if not any(map(is_litter, name.split("/"))))
        names = {name.removeprefix(inside) for name in own}
        if odd := [name for name in names if not _MEMBER.fullmatch(name)]:
            raise InputError(f"{odd[0][:80]!r} is not one of the files of a run")
        if not {LISTING, CARD} <= names:
            raise InputError(f"it has no {LISTING} or no {CARD}")
        about = json.loads(file.read(inside + LISTING))
        if lost := sorted(about["members"].keys() - names):
            raise InputError(f"{lost[0]} is missing, {len(lost)} files in all")
        if about["format"] != FORMAT or about["members"].keys() != names - {LISTING}:
            raise InputError(f"its members are not those of its {LISTING}")
        for name, mark in about["members"].items():
            content = file.read(inside + name)  # no more than the size that was added up
            if _mark(content) != mark:
                raise InputError(f"{name} is damaged (size or checksum differs)")
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(content)


def _check(folder: Path) -> None:
    """Open all that is in an unpacked run as the lessons will."""
    card = read_card((folder / CARD).read_bytes())
    for path in sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")):
        try:
            _check_artefact(path, card)
        except Exception as error:
            reason = str(error).replace(f"{path}{os.sep}", "")
            raise InputError(f"{path.name} cannot be used: {reason}") from error
    wanted = () if card.pictures == "none" else map(picture_name, card.table.index)
    pictures = sorted(f"pictures/{path.name}" for path in folder.glob("pictures/*"))
    if sorted(wanted) != pictures:
        raise InputError(f"its pictures are not those of its {len(card.table)} images")
    for name in pictures:
        open_image(folder / name)
    opened = Run(ArchiveSource(folder), folder, lambda line: None, progress=False, make=False)
    opened.features(), travelling(opened, card.seeds)


def _check_artefact(path: Path, card: RunCard) -> None:
    about, stage = json.loads((path / MANIFEST).read_bytes()), STAGES[path.name.partition("-")[0]]
    if about["stage"] != stage.name or about["version"] != stage.version:
        mend = "use the same version of emokd_utils on both sides"
        raise InputError(f"it was made by another version of the stage {stage.name}: {mend}")
    key = fingerprint({name: about[name] for name in ("stage", "version", "inputs")})
    if about["key"] != key or not path.name.endswith(f"-{key}"):
        raise InputError("its name is not what its key says")
    if {file.name for file in path.iterdir()} != {MANIFEST, *stage.travels}:
        raise InputError("its files are not those of its stage")
    for file in path.glob("*.safetensors"):
        need(all(np.isfinite(values).all() for values in load_file(file).values()), "numbers")
    for file in path.glob("predictions.csv"):
        read = Predictions.load(file)
        labels = card.table.loc[list(read.ids), "label"]
        need(read.labels == tuple(labels), "labels (of other data)")
