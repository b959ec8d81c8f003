"""What the command line takes: ``python -m emokd_utils COMMAND ...``."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from .. import __version__
from ..profiles import project_root
from ..run.environment import runs_folder

Parser = argparse.ArgumentParser


def build_parser() -> Parser:
    """The command line; ``args.command`` names the command."""
    parser = Parser(
        prog="python -m emokd_utils", description="EmoVLM-KD, trained and measured end to end."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, *groups) in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        for add_options in groups:
            add_options(command)
    return parser


def whole(low: int, high: int = 2**63) -> Callable[[str], int]:
    """What reads a text as a whole number from low to high."""

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            wanted = f"from {low} to {high}" if high < 2**63 else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {wanted}")
        return int(text)

    return read


count, seed, port = whole(1), whole(0, 2**32 - 1), whole(1, 65535)


def _profile(parser: Parser) -> None:
    usual = os.environ.get("EMOKD_PROFILE") or "mini"
    text = "settings to use (default: the variable EMOKD_PROFILE, else mini)"
    parser.add_argument("--profile", default=usual, metavar="NAME", help=text)


def _models(parser: Parser) -> None:
    vision = "another vision model, by its timm name, and where it starts (see --further-vision)"
    field = "another field of the profile, as head.alpha=0.3 (may be given more than once)"
    add = parser.add_argument
    add("--vlm", default="", metavar="ID_OR_FOLDER", help="another VLM than the profile's")
    add("--vision", default="", metavar="NAME[@WEIGHTS]", help=vision)
    add("--set", action="append", default=[], dest="settings", metavar="FIELD=VALUE", help=field)


def _further(parser: Parser) -> None:
    text = "one more vision model for the table; WEIGHTS: `timm`, `package` or a safetensors file"
    about = {"action": "append", "default": [], "metavar": "NAME[@WEIGHTS]"}
    parser.add_argument("--further-vision", help=text, **about)


def _data(parser: Parser) -> None:
    text = "your own images, as DIR/train/<class>/*.png and DIR/test/... (default: EmoScenes)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=text)
    parser.add_argument("--skip-bad", action="store_true", help="go on without unreadable images")
    _runs(parser)


def _runs(parser: Parser) -> None:
    text = "where results are kept (default: the variable EMOKD_RUNS, else the project's runs/)"
    parser.add_argument("--runs", type=Path, default=runs_folder(), metavar="DIR", help=text)


def _seed(parser: Parser, text: str = "whose (default: 0)") -> None:
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help=text)


def _run(parser: Parser) -> None:
    seeds = parser.add_mutually_exclusive_group()
    _seed(seeds, "one seed (default: 0)")
    text = "K seeds, and intervals over them"
    seeds.add_argument("--seeds", type=count, default=1, metavar="K", help=text)
    text = "divide all images anew K times, train on each division, and report over them"
    seeds.add_argument("--splits", type=count, metavar="K", help=text)
    parser.add_argument("--reduced", action="store_true", help="a small run of every stage")
    text = "train nothing: the table of the run that came with the course"
    parser.add_argument("--shipped", action="store_true", help=text)


def _plan(parser: Parser) -> None:
    parser.add_argument("--gpu", metavar="NAME", help="T4, L4 ... or cpu (default: the one here)")
    parser.add_argument("--images", type=count, metavar="N", help="without images: how many")
    parser.add_argument("--classes", type=count, default=8, metavar="C", help="with --images (8)")


def _demo(parser: Parser) -> None:
    text = "of 127.0.0.1 (default: the first free from 7860)"
    parser.add_argument("--port", type=port, metavar="N", help=text)


def _export(parser: Parser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT.zip", help="the archive to write")
    kept = parser.add_mutually_exclusive_group()
    _seed(kept)
    kept.add_argument("--seeds", type=count, default=1, metavar="K", help="those of K seeds")
    parser.add_argument("--no-images", action="store_true", help="no thumbnails of the images")
    text = "make no explanations and reasons for the lessons"
    parser.add_argument("--only-kept", action="store_true", help=text)


def _import(parser: Parser) -> None:
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="what `export` wrote")
    parser.add_argument("--name", metavar="NAME", help="of the run (default: the archive's)")


def _bench(parser: Parser) -> None:
    parser.add_argument("--images", type=count, metavar="N", help="how many images to time")
    text = "random weights of this profile's shape, every stage, beside its plan; fetches nothing"
    parser.add_argument("--shape", metavar="PROFILE", help=text)


def _writer(parser: Parser) -> None:
    add = parser.add_argument
    text = "ask this model (server: OPENAI_BASE_URL, key: OPENAI_API_KEY)"
    add("--model", required=True, metavar="NAME", help=text)
    add("--dry-run", action="store_true", help="estimate only; asks nothing")
    text = "stop when the journal holds so many images"
    add("--max-images", type=count, metavar="N", help=text)
    add("--max-cost", type=float, metavar="X", help="stop before it costs more")
    add("--price-in", type=float, metavar="X", help="of a million tokens in")
    add("--price-out", type=float, metavar="X", help="of a million tokens out")
    text = "requests a minute (default: 60)"
    add("--rpm", type=float, dest="requests_per_minute", metavar="N", help=text)
    add("--concurrency", type=count, metavar="N", help="at once (default: 4)")
    text = "where the journal is (default: instructions/ beside the profile's results)"
    add("--out", type=Path, metavar="DIR", help=text)


def _convert(parser: Parser) -> None:
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="one of --list, imagefolder or datasets")
    text = "the unpacked release; for datasets also an id"
    add("source", nargs="?", metavar="SOURCE", help=text)
    add("out", nargs="?", type=Path, metavar="OUT", help="the folder to write")
    _seed(parser, "of a split (default: 0)")
    text = "the paper's data sets; with NAME all that is known of it"
    add("--list", action="store_true", help=text)


def _scenes(parser: Parser) -> None:
    usual = project_root() / "data" / "emoscenes"
    text = "where (default: the project's data/emoscenes)"
    parser.add_argument("--root", type=Path, default=usual, metavar="DIR", help=text)
    parser.add_argument("--check", action="store_true", help="compare with the known checksum")


def _sweep(parser: Parser) -> None:
    usual = project_root() / "data" / "sweep.csv"
    parser.add_argument(
        "--seeds", type=count, default=2, metavar="K", help="of each point (default: 2)"
    )
    text = "points made side by side (default: 2)"
    parser.add_argument("--processes", type=count, default=2, metavar="N", help=text)
    parser.add_argument("--out", type=Path, default=usual, metavar="CSV", help="the table to write")
    _runs(parser)


def _forecast(parser: Parser) -> None:
    text = "two tables of val images: id, label and a column of probabilities for each class"
    parser.add_argument("tables", nargs="*", type=Path, metavar="CSV", help=text)
    text = "in place of tables: of a profile's run, or of an imported one"
    parser.add_argument("--run", metavar="NAME", help=text)
    parser.add_argument("--splits", type=count, metavar="K", help="of `run --splits K`")
    _seed(parser)


def _pretrain(parser: Parser) -> None:
    usual = project_root() / "data" / "tiny_vlm"
    parser.add_argument("--out", type=Path, default=usual, metavar="DIR", help="where")


_CHOSEN = (_profile, _models, _data)
COMMANDS: dict[str, tuple[str | Callable[[Parser], None], ...]] = {
    "doctor": ("check that everything needed is here",),
    "run": ("train and measure every part, write the report", *_CHOSEN, _further, _run),
    "check": ("compare what is kept with its checksums", _profile, _data),
    "plan": ("what a run would take (disk, memory, hours); fetches nothing", *_CHOSEN, _plan),
    "demo": ("a page to try what a run has trained on your images", *_CHOSEN, _seed, _demo),
    "export": ("write a run as one archive", *_CHOSEN, _further, _export),
    "import": ("check such an archive and install it as a run", _import, _runs),
    "bench": ("time every stage beside the published loop", _profile, _models, _bench),
    "write-instructions": ("have a large model write instructions", _profile, _data, _writer),
    "convert": ("bring a released data set to the layout of --data", _convert),
    "scenes": ("make EmoScenes, the built-in data", _scenes),
    "ship": ("pack the built-in run for data/mini_run, which comes with the course", _runs),
    "sweep": ("train over worlds and conditions: when does the method pay? (hours)", _sweep),
    "forecast": (
        "is EmoVLM-KD worth it for two models? From their answers",
        _forecast,
        _models,
        _data,
    ),
    "pretrain": ("make TinyVLM anew, the built-in VLM (about 105 minutes on 2 cores)", _pretrain),
}
"""What a command does, in words, and what adds its options."""
