"""EmoScenes on disk: made below a folder, compared with the published pixels."""

import contextlib
import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from filelock import FileLock
from PIL import Image
from PIL import __version__ as pillow_version

from ..errors import InputError
from ..files import fingerprint
from ..scan import pixels_hash
from .scenes import HOME, SEED, USUAL, World, make_scene

SPLIT_SIZES = {"train": 1600, "val": 400, "test": 1200}
_COLUMNS = "file emotion cue objects boxes setting hue saturation brightness light texture weather "
_COLUMNS += "label_noise caption"


def ensure_scenes(
    root: Path | str = HOME, seed=SEED, sizes=SPLIT_SIZES, say=print, world: World = USUAL
) -> Path:
    """Make EmoScenes below ``root`` unless it is there; returns ``root``. ``metadata.csv`` marks the
    set as complete. Raises InputError for scenes of another seed, size or world."""
    root = Path(root)
    stamp = {"seed": seed, "sizes": dict(sizes)} | (asdict(world) if world != USUAL else {})
    if _whole(root, stamp):
        return root
    root.mkdir(parents=True, exist_ok=True)
    # One process makes them and the others wait: files put in place twice would look changed.
    with FileLock(root / ".making.lock") as lock:
        if making := not _whole(root, stamp):
            with tempfile.TemporaryDirectory(prefix=".making-", dir=root) as draft:
                _write_scenes(Path(draft), stamp, world)
                for name in (*sizes, "scenes.json", "metadata.csv"):
                    with contextlib.suppress(OSError):  # a process that was killed had put it there
                        Path(draft, name).rename(root / name)
    Path(lock.lock_file).unlink(missing_ok=True)
    if not making:
        return root
    say(f"[made] EmoScenes: {sum(sizes.values()):,} images in {root}")
    if root == HOME:
        say(check_scenes(root)[1])
    return root


def _whole(root: Path, stamp: dict) -> bool:
    if not ((root / "scenes.json").is_file() and (root / "metadata.csv").is_file()):
        return False
    there = json.loads((root / "scenes.json").read_text(encoding="utf-8"))
    if there | stamp != there:
        raise InputError(f"{root} holds scenes of another seed or size; give another folder")
    return True


def _write_scenes(folder: Path, stamp: dict, world: World) -> None:
    rows, drawn = [], {}
    for split, count in stamp["sizes"].items():
        for number in range(count):
            scene = make_scene(split, number, stamp["seed"], world)
            file = f"{split}/{scene.label}/{number:05d}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            scene.image.save(folder / file, compress_level=1)
            drawn[file] = pixels_hash(scene.image)
            look = scene.atmosphere
            boxes = ";".join(" ".join(map(str, box)) for box in scene.boxes)
            row = [file, scene.emotion, scene.cue, ";".join(scene.objects), boxes, scene.setting]
            row += [round(look.hue, 1), round(look.saturation, 3), round(look.brightness, 3)]
            row += [look.light, look.texture, look.weather]
            rows.append([*row, scene.label != scene.emotion, scene.caption])
    pd.DataFrame(rows, columns=_COLUMNS.split()).to_csv(
        folder / "metadata.csv", index=False, lineterminator="\r\n"
    )
    hashes = {split: _pixels_hash(folder / split) for split in stamp["sizes"]}
    about = {"pillow": pillow_version, "sha256": hashes, "drawn": fingerprint(drawn)}
    text = json.dumps(stamp | about, indent=1)
    (folder / "scenes.json").write_text(text + "\n", encoding="utf-8")


def published_fingerprint(pixels: pd.Series) -> str | None:
    """The fingerprint of the published EmoScenes, for images that are as they were drawn here; else
    None. Another processor may round a few pixels the other way, which makes no other
    data set. pixels: image id -> `pixels_hash`."""
    there = json.loads((HOME / "scenes.json").read_text(encoding="utf-8"))
    known = json.loads((HOME / "checksum.json").read_text(encoding="utf-8"))
    return known["fingerprint"] if there.get("drawn") == fingerprint(pixels.to_dict()) else None


def _pixels_hash(folder: Path) -> str:
    files = sorted(folder.glob("*/*.png"), key=lambda path: path.name)
    hashes = (hashlib.sha256(Image.open(path).tobytes()).hexdigest() for path in files)
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def check_scenes(root: Path | str = HOME) -> tuple[bool, str]:
    """Whether the pixels on disk are those of the published checksum, and the sentence for it."""
    known = json.loads((HOME / "checksum.json").read_text(encoding="utf-8"))
    for split, published in known["sha256"].items():
        if _pixels_hash(Path(root) / split) != published:
            text = f"[differs] {split}: other pixels than those published with Pillow "
            text += f"{known['pillow']} (here {pillow_version}); results may differ a little "
            return False, text + "from those in the course"
    return True, f"[ok] EmoScenes: every pixel as published (seed {known['seed']})"
