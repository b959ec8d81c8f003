"""The commands: ``python -m emokd_utils doctor | run | plan | demo | bench | scenes | ...``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..profiles import project_root

OUT_OF_MEMORY = (
    "`python -m emokd_utils plan` with the same profile says what to set so that it fits; the run "
    "then goes on from the last finished step"
)


def _count(text: str) -> int:
    """``text`` as a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    """``text`` as a whole number from 0 to 2**32 - 1, the range of numpy's seeds."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**32 - 1")
    return int(text)


def _port(text: str) -> int:
    """``text`` as the number of a port, 1 to 65535."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a whole number from 1 to 65535")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """The command line; ``args.module`` names the module of emokd_utils that carries it out."""
    parser = argparse.ArgumentParser(
        prog="python -m emokd_utils", description="EmoVLM-KD, trained and measured end to end."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="check that everything needed is here")
    doctor.set_defaults(module="cli.doctor")

    run = commands.add_parser("run", help="train and measure every part, write the report")
    run.set_defaults(module="run.pipeline")
    _add_profile(run)
    _add_models(run)
    _add_data(run)
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_seed, default=0, metavar="N", help="one seed (default: 0)")
    seeds.add_argument(
        "--seeds", type=_count, default=1, metavar="K", help="K seeds, and intervals over them"
    )
    seeds.add_argument(
        "--splits",
        type=_count,
        metavar="K",
        help="divide all images anew K times, train on each division, and report over them",
    )
    _add_further(run)
    run.add_argument("--reduced", action="store_true", help="a small run of every stage, for tests")

    plan = commands.add_parser(
        "plan", help="what a run would take: downloads, disk, memory, hours; fetches nothing"
    )
    plan.set_defaults(module="scale.plan")
    _add_profile(plan)
    _add_models(plan)
    _add_data(plan)
    plan.add_argument(
        "--gpu",
        metavar="NAME",
        help="T4, L4, A100-40 ... or cpu (default: the one here; without one an L4 for weights in 4 "
        "bits, else the CPU)",
    )
    plan.add_argument("--images", type=_count, metavar="N", help="without images: how many")
    plan.add_argument(
        "--classes", type=_count, default=8, metavar="C", help="with --images (default: 8)"
    )

    demo = commands.add_parser("demo", help="a page to try what a run has trained on your images")
    demo.set_defaults(module="cli.demo")
    _add_profile(demo)
    _add_models(demo)
    _add_data(demo)
    demo.add_argument("--seed", type=_seed, default=0, metavar="N", help="whose (default: 0)")
    demo.add_argument("--gate", metavar="KIND", help="which gate (default: the profile's first)")
    demo.add_argument(
        "--port", type=_port, metavar="N", help="of 127.0.0.1 (default: the first free from 7860)"
    )
    demo.add_argument("--open", action="store_true", help="open it in the browser")

    export = commands.add_parser(
        "export", help="write a run's results and thumbnails as one archive"
    )
    export.set_defaults(module="scale.archive")
    export.add_argument("out", type=Path, metavar="OUT.zip", help="the archive to write")
    _add_profile(export)
    _add_models(export)
    _add_further(export)
    _add_data(export)
    kept = export.add_mutually_exclusive_group()
    kept.add_argument("--seed", type=_seed, default=0, metavar="N", help="whose (default: 0)")
    kept.add_argument("--seeds", type=_count, default=1, metavar="K", help="those of K seeds")
    images = export.add_mutually_exclusive_group()
    images.add_argument("--originals", action="store_true", help="the images as they are")
    images.add_argument("--no-images", action="store_true", help="no images at all")
    export.add_argument(
        "--pixels", type=_count, default=256, metavar="N", help="thumbnails' longer side (256)"
    )
    export.add_argument(
        "--only-kept", action="store_true", help="make no explanations and reasons for the lessons"
    )
    _add_bound(export)

    taken = commands.add_parser("import", help="check such an archive and install it as a run")
    taken.set_defaults(module="scale.archive")
    taken.add_argument("archive", type=Path, metavar="ARCHIVE", help="what `export` wrote")
    taken.add_argument("--name", metavar="NAME", help="of the run (default: the archive's)")
    _add_runs(taken)
    _add_bound(taken)

    bench = commands.add_parser("bench", help="time every stage beside the published loop")
    bench.set_defaults(module="cli.bench")
    _add_profile(bench)
    _add_models(bench)
    bench.add_argument("--images", type=_count, metavar="N", help="how many images to time")

    writer = commands.add_parser(
        "write-instructions", help="have a large model write instructions, or import such texts"
    )
    writer.set_defaults(module="scale.ask")
    _add_profile(writer)
    _add_data(writer)
    source = writer.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model",
        metavar="NAME",
        help="ask this model (server: OPENAI_BASE_URL, key: OPENAI_API_KEY)",
    )
    source.add_argument(
        "--import",
        dest="source",
        type=Path,
        metavar="FILE",
        help="answers in the JSON of the paper's published code",
    )
    writer.add_argument("--dry-run", action="store_true", help="estimate only; asks nothing")
    budgets = "stop when the journal holds so many"
    writer.add_argument("--max-images", type=_count, metavar="N", help=f"{budgets} images")
    writer.add_argument("--max-tokens", type=_count, metavar="N", help=f"{budgets} tokens")
    writer.add_argument("--max-cost", type=float, metavar="X", help="stop before it costs more")
    writer.add_argument("--price-in", type=float, metavar="X", help="of a million tokens in")
    writer.add_argument("--price-out", type=float, metavar="X", help="of a million tokens out")
    writer.add_argument(
        "--rpm",
        dest="requests_per_minute",
        type=float,
        metavar="N",
        help="requests a minute (default: 60)",
    )
    writer.add_argument("--concurrency", type=_count, metavar="N", help="at once (default: 4)")
    writer.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the journal is (default: instructions/ beside the profile's results)",
    )

    convert = commands.add_parser(
        "convert", help="bring a released data set to the layout of --data"
    )
    convert.set_defaults(module="scale.convert")
    convert.add_argument(
        "name", nargs="?", metavar="NAME", help="one of --list, imagefolder or datasets"
    )
    convert.add_argument(
        "source", nargs="?", metavar="SOURCE", help="the unpacked release; for datasets also an id"
    )
    convert.add_argument("out", nargs="?", type=Path, metavar="OUT", help="the folder to write")
    convert.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of a split (default: 0)"
    )
    convert.add_argument("--link", action="store_true", help="hard links instead of copies")
    convert.add_argument(
        "--list",
        action="store_true",
        help="the paper's data sets; with NAME all that is known of it",
    )

    scenes = commands.add_parser("scenes", help="make EmoScenes, the built-in data")
    scenes.set_defaults(module="world.scenes")
    scenes.add_argument(
        "--root",
        type=Path,
        default=project_root() / "data" / "emoscenes",
        metavar="DIR",
        help="where (default: the project's data/emoscenes)",
    )
    action = scenes.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare with the known checksum")
    action.add_argument("--render", action="store_true", help="render the sprite sheet from SVG")
    return parser


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        default=os.environ.get("EMOKD_PROFILE") or "mini",
        metavar="NAME",
        help="settings to use (default: the variable EMOKD_PROFILE, else mini)",
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vlm", default="", metavar="ID_OR_FOLDER", help="another VLM than the profile's"
    )
    parser.add_argument(
        "--vision",
        default="",
        metavar="NAME[@WEIGHTS]",
        help="another vision model, by its timm name, and where it starts (see --further-vision)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="FIELD=VALUE",
        help="another field of the profile (may be given more than once)",
    )


def _add_further(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--further-vision",
        action="append",
        default=[],
        metavar="NAME[@WEIGHTS]",
        help="one more vision model for the table, by its timm name; WEIGHTS: where it starts, "
        "`timm` (downloaded) or a safetensors file (may be given more than once)",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="your own images, as DIR/train/<class>/*.png and DIR/test/... (default: EmoScenes)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="go on without unreadable images")
    _add_runs(parser)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs",
        type=Path,
        default=project_root() / "runs",
        metavar="DIR",
        help="where results are kept and found again (default: the project's runs/)",
    )


def _add_bound(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-mb",
        type=_count,
        default=2000,
        metavar="N",
        help="10^6 bytes, unpacked, at most (default: 2000)",
    )


def main(argv: list[str] | None = None) -> int:
    """Carry out one command and return its exit code.

    0: done; 1: a check failed; 2: what was given cannot be used; 130: interrupted. For the last two
    one sentence goes to standard error, and no trace.
    """
    args = build_parser().parse_args(argv)
    try:
        return importlib.import_module(f"emokd_utils.{args.module}").main(args) or 0
    except InputError as error:
        message, code = str(error), 2
    except FileNotFoundError as error:
        message = f"{error.filename}: no such file or folder" if error.filename else str(error)
        code = 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "emokd_utils":
            raise
        message = (
            f"{error.name} is not installed here; `python -m emokd_utils doctor` tells the mend"
        )
        code = 2
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for it
            raise
        message, code = f"{str(error).partition('. ')[0]}: {OUT_OF_MEMORY}", 2
    except KeyboardInterrupt:
        message, code = "interrupted; the same command goes on from the last finished step", 130
    print(f"emokd_utils: {message}", file=sys.stderr)
    return code
