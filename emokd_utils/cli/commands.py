"""The commands: what each one does with what the command line gave it."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from .. import processes
from ..errors import InputError
from ..evidence import bootstrap
from ..lazy import lazy
from ..predictions import Predictions
from ..profiles import MINI
from ..run.card import CARD, read_card
from ..run.environment import asked_profile, runs_folder
from ..run.report import agreement, readable, write_repeated, write_report
from ..run.results import Repeated, Results
from ..run.run import Run, built_in_run, open_run
from ..run.store import MANIFEST, NotMadeError, damaged_files
from ..scale import shipping
from ..world import files as world
from .parser import build_parser

archive = lazy("scale.archive")
ask = lazy("scale.ask")
bench = lazy("cli.bench")
convert = lazy("scale.convert")
demo = lazy("cli.demo")
devices = lazy("scale.devices")
doctor = lazy("cli.doctor")
forecasts = lazy("forecast")
plan = lazy("scale.plan")
sweep = lazy("scale.sweep")
shapes = lazy("scale.shape")
pretraining = lazy("world.pretrain")

OUT_OF_MEMORY = (
    "`python -m emokd_utils plan` with the same profile says what to set so that it fits; the run "
    "then goes on from the last finished step"
)
UNWRITTEN = (
    "make room or choose another folder (--runs, --data, --out); the same command goes on from the "
    "last finished step"
)
STORAGE = "ENOSPC EDQUOT EFBIG EACCES EPERM EROFS ENOTDIR EISDIR EIO ENAMETOOLONG".split()


def storage_error(error: BaseException | None) -> int:
    """The number of the error for which a file could not be written or read; 0 for any other."""
    while error is not None:
        if isinstance(error, OSError) and errno.errorcode.get(error.errno) in STORAGE:
            return error.errno
        if match := re.search(r"\(os error (\d+)\)", str(error)):  # as safetensors tells it
            return int(match[1])
        if "PytorchStreamWriter failed" in str(error):
            return errno.ENOSPC
        error = error.__cause__
    return 0


def sentence_for(error: Exception) -> str | None:
    """What is told of an error in place of its trace; None for one that nobody expects."""
    where = f"{error.filename}: " if getattr(error, "filename", None) else ""
    match error:
        case InputError():
            return str(error)
        case FileNotFoundError():
            return f"{where}no such file or folder" if where else str(error)
        case ModuleNotFoundError(name=str(name)) if name.split(".")[0] != "emokd_utils":
            return f"{name} is not installed here; `python -m emokd_utils doctor` tells the mend"
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported for it
        return f"{str(error).partition('. ')[0]}: {OUT_OF_MEMORY}"
    if number := storage_error(error):
        return f"{where}{os.strerror(number)}; {UNWRITTEN}"
    return None


def main(argv: list[str] | None = None) -> int:
    """Carry out one command and return its exit code.

    0: done; 1: a check failed; 2: what was given cannot be used; 130: interrupted. For the last two
    one sentence goes to standard error, and no trace."""
    args = build_parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args) or 0
    except KeyboardInterrupt:
        message, code = "interrupted; the same command goes on from the last finished step", 130
    except Exception as error:
        message, code = sentence_for(error), 2
        if message is None:
            raise
    print(f"emokd_utils: {message}", file=sys.stderr)
    return code


def quiet(line: str) -> None:
    """Say nothing of what is kept or made."""


def opened(args: Namespace, **options) -> Run:
    """The run that a command line asks for."""
    profile = asked_profile(args)
    return open_run(profile, args.data, args.runs, skip_bad=args.skip_bad, **options)


def seeds_of(args: Namespace) -> list[int]:
    """One seed, or the first so many."""
    return list(range(args.seeds)) if args.seeds > 1 else [args.seed]


def run(args: Namespace) -> None:
    """Every stage for one or more seeds, the table and the report."""
    if args.splits:
        text = write_repeated(Repeated([opened(args, resplit=k) for k in range(args.splits)]))
    elif args.shipped:
        with tempfile.TemporaryDirectory() as scratch:
            results = Results(built_in_run(Path(scratch), quiet, make=False), shipping.SEEDS)
            table = readable(results.table()).to_string()
            text = "\n".join([table, "", *map(str, results.claims())])
    else:
        whole, seeds = opened(args, shipped=False), seeds_of(args)
        whole.source.check(whole.dataset)  # tells what the scan found before anything else
        again = all(map(whole.is_kept, seeds))
        results = Results(whole, seeds)
        whole.costs(seeds[0]), whole.tuned(seeds[0], "generate")  # in every process
        text = write_report(results) if processes.first() else ""
        if whole.source.built_in and whole.profile == MINI and processes.first() and not again:
            text += f"\n\n{beside_shipped(whole, seeds)}"
    if processes.first():
        print(f"\n{text}")
    processes.finish()


def beside_shipped(whole: Run, seeds: Sequence[int]) -> str:
    """Whether a run of the built-in profile says what the one says that came with the course."""
    common = [seed for seed in seeds if seed in shipping.SEEDS]
    if not common:
        return f"Of these seeds none came with the course (those did: {shipping.SEEDS})."
    with tempfile.TemporaryDirectory() as scratch:
        came = built_in_run(Path(scratch), quiet, make=False)
        try:
            return agreement(Results(whole, common), Results(came, common))
        except NotMadeError:
            return (
                "What came with the course is of other images or stages: nothing to compare with."
            )


def check(args: Namespace) -> int:
    """Compare every kept file with the checksum of when it was made."""
    folder = open_run(args.profile, args.data, args.runs, make=False).folder
    kept = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    damaged = [f"{path.name}: {name}" for path in kept for name in damaged_files(path)]
    for line in damaged:
        print(f"[damaged] {line}; remove the folder, and it is made anew")
    print(f"{folder}: {len(kept)} results, {len(damaged)} damaged files")
    return int(bool(damaged))


def plan_run(args: Namespace) -> int:
    """What a run would take; 1 where it does not fit."""
    profile = asked_profile(args)
    if args.images:
        images = plan.Images.assumed(args.images, args.classes, profile.tuning.kinds)
    elif args.data and not args.data.is_dir():
        raise InputError(f"{args.data} is no folder; without images say how many: --images N")
    else:
        whole = opened(args, progress=False)
        whole.source.check(whole.dataset)
        images = plan.Images.of(whole.dataset, profile)
    planned = plan.plan(profile, images, devices.get_device(args.gpu, profile))
    print(planned)
    return int(not planned.fits)


def export(args: Namespace) -> None:
    """Write a run as an archive."""
    pictures = "none" if args.no_images else "thumbnails"
    options = {"pictures": pictures, "only_kept": args.only_kept}
    path = archive.export(opened(args), args.out, seeds_of(args), **options)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, pictures: {pictures}")


def import_archive(args: Namespace) -> None:
    """Check an archive and install it as a run."""
    target = archive.install(args.archive, args.runs, args.name)
    card = read_card((target / CARD).read_bytes())
    known = target.parent.resolve() == runs_folder().resolve()
    print(
        f"{target}: {len(card.table)} images of {card.data} ({card.pictures}), profile "
        f"{card.profile.name}, seed(s) {', '.join(map(str, card.seeds))}\n"
        "Its form is checked; that its answers are the models' is its sender's word.\n"
        f"To work from it: EMOKD_RUN={target.name if known else target.resolve()}"
    )


def time_stages(args: Namespace) -> int:
    """Each stage beside the published loop; 1 where a ratio is not reached. Or, with random weights of
    a profile's true shape, beside its plan."""
    if args.shape:
        args.profile = args.shape
        print(shapes.true_shape(asked_profile(args), args.images or 8).round(3).to_string())
        return 0
    table = bench.bench(open_run(asked_profile(args)), args.images or 64)
    print(f"\n{table.to_string()}")
    reached = bool((table["ratio"] >= table["wanted"]).all())
    print("[ok] every ratio is reached" if reached else "[missed] a ratio is not reached")
    return int(not reached)


def write_instructions(args: Namespace) -> int:
    """Estimate, ask a large model, and report."""
    whole = open_run(args.profile, args.data, args.runs, skip_bad=args.skip_bad, progress=False)
    train, folder = whole.dataset.split("train"), args.out or whole.folder / "instructions"
    names = {field.name for field in fields(ask.WriterSettings)} & vars(args).keys()
    given = {name: getattr(args, name) for name in names}
    settings = ask.WriterSettings(**{k: v for k, v in given.items() if v is not None})
    print(ask.estimate(train, settings, folder), flush=True)
    if args.dry_run:
        return 0
    url, key = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
    report = ask.write_with_model(train, settings, folder, base_url=url, api_key=key)
    print(report)
    return 130 if report.stopped == "interrupted" else int(bool(report.failures))


def convert_release(args: Namespace) -> None:
    """A release to the common layout, or what there is."""
    if args.list:
        print(convert.describe(args.name) if args.name else convert.overview())
        return
    if args.out is None:
        raise InputError("convert needs NAME SOURCE OUT; `convert --list` names the data sets")
    print(convert.convert(args.name, args.source, args.out, seed=args.seed).text())


def make_scenes(args: Namespace) -> int:
    """Make EmoScenes, or compare its pixels with those published."""
    world.ensure_scenes(args.root)
    if not args.check:
        return 0
    good, sentence = world.check_scenes(args.root)
    print(sentence)
    return int(not good)


def turn_dials(args: Namespace) -> None:
    """The sweep over worlds and conditions."""
    table = sweep.sweep(args.runs / "sweep", range(args.seeds), args.processes, args.out)
    print(f"{args.out}: {len(table)} rows")


def foretell(args: Namespace) -> None:
    """Whether EmoVLM-KD is worth it, from two models' answers about val images; of a run also what
    came on test, where that is kept."""
    table = forecasts.sweep_table()
    if args.run is None:
        if len(args.tables) != 2:
            raise InputError("forecast needs two tables, A.csv B.csv, or --run NAME")
        sides = [Predictions.read(path) for path in args.tables]
        print(
            forecasts.forecast(*(s.split("val") if "val" in s.splits else s for s in sides), table)
        )
        return
    args.profile = args.run
    if ((folder := args.runs / args.run) / CARD).is_file():
        args.profile, args.data = None, folder
    for resplit in range(args.splits) if args.splits else [None]:
        whole = opened(args, make=False, resplit=resplit, say=quiet)
        seed = args.seed if resplit is None else resplit
        if resplit is not None:
            print(f"\nDivision {resplit}")
        sides = [whole.tuned(seed), whole.vision_predictions(seed)]
        val = [side.split("val") for side in sides]
        print(forecasts.forecast(*val, table))
        with suppress(NotMadeError):
            final = whole.emovlm_kd(seed).split("test")
            single = sides[val.index(forecasts.better_of(*val))].split("test")
            ahead = bootstrap(final.correct.astype(float) - single.correct)
            print(f"On test it was ahead by:             {ahead.points}")


def ship(args: Namespace) -> None:
    """Pack the built-in run for the course, and train for it what is not kept or packed already."""
    folder = shipping.ship(open_run(MINI, world.HOME, args.runs))
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")


def pretrain(args: Namespace) -> None:
    """Make TinyVLM's checkpoint anew."""
    facts = pretraining.pretrain(args.out, runs_folder() / "pretrain")
    print(json.dumps(facts, indent=1))


COMMANDS: dict[str, Callable[[Namespace], int | None]] = {
    "doctor": lambda args: doctor.doctor(),
    "run": run,
    "check": check,
    "plan": plan_run,
    "demo": lambda args: demo.demo(opened(args, make=False), args.seed, args.port),
    "export": export,
    "import": import_archive,
    "bench": time_stages,
    "write-instructions": write_instructions,
    "convert": convert_release,
    "scenes": make_scenes,
    "ship": ship,
    "sweep": turn_dials,
    "forecast": foretell,
    "pretrain": pretrain,
}
