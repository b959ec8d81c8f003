"""The commands: ``python -m emokd_utils doctor | run | bench | scenes``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from emokd_utils import __version__
from emokd_utils.errors import InputError
from emokd_utils.profiles import project_root


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


def build_parser() -> argparse.ArgumentParser:
    """The command line; ``args.module`` names the module of emokd_utils that carries it out."""
    parser = argparse.ArgumentParser(
        prog="python -m emokd_utils", description="EmoVLM-KD, trained and measured end to end."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = commands.add_parser("doctor", help="check that everything needed is here")
    doctor.set_defaults(module="doctor")

    run = commands.add_parser("run", help="train and measure every part, write the report")
    run.set_defaults(module="pipeline")
    _add_profile(run)
    run.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="your own images, as DIR/train/<class>/*.png and DIR/test/... (default: EmoScenes)",
    )
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=_seed, default=0, metavar="N", help="one seed (default: 0)")
    seeds.add_argument(
        "--seeds", type=_count, default=1, metavar="K", help="K seeds, and intervals over them"
    )
    run.add_argument(
        "--further-vision",
        action="append",
        default=[],
        metavar="NAME[@WEIGHTS]",
        help="one more vision model for the table, by its timm name; WEIGHTS: where it starts, "
        "`timm` (downloaded) or a safetensors file (may be given more than once)",
    )
    run.add_argument("--skip-bad", action="store_true", help="go on without unreadable images")
    run.add_argument("--reduced", action="store_true", help="a small run of every stage, for tests")
    run.add_argument(
        "--runs",
        type=Path,
        default=project_root() / "runs",
        metavar="DIR",
        help="where results are kept and found again (default: the project's runs/)",
    )

    bench = commands.add_parser("bench", help="time every stage beside the published loop")
    bench.set_defaults(module="bench")
    _add_profile(bench)
    bench.add_argument("--images", type=_count, metavar="N", help="how many images to time")

    scenes = commands.add_parser("scenes", help="make EmoScenes, the built-in data")
    scenes.set_defaults(module="scenes")
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
    except KeyboardInterrupt:
        message, code = "interrupted; the same command goes on from the last finished step", 130
    print(f"emokd_utils: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
