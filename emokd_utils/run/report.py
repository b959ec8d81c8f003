"""``report.md`` and its figures: the final table, the claims, the costs, in one page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from .. import figures
from ..evidence import RESAMPLES, bootstrap
from ..files import write_text
from ..predictions import (
    BOTH_RUN,
    EMOVLM_KD,
    HEAD,
    PUBLISHED,
    TOGETHER,
    TUNED,
    VISION,
    VLM_ALONE,
    ZERO_SHOT,
    gate_name,
)
from . import stages
from .results import Repeated, Results
from .run import Run


def write_report(results: Results) -> str:
    """Write ``report.md`` and its figures to the run's folder; returns the text to print."""
    run, seeds = results.run, results.seeds
    costs, claims = run.costs(seeds[0]), results.claims()
    shown = _with_costs(readable(results.table()), costs, results.final)
    per_seed = results.per_seed().map(lambda share: f"{100 * share:.1f}")
    sections = {
        f"Accuracy on the test split (n = {len(results.ids)}, seeds {', '.join(map(str, seeds))})": [
            markdown(shown),
            "Accuracy in per cent with a 95 % interval (bootstrap over images, "
            f"{RESAMPLES} resamples), averaged over seeds.\n"
            f'"{PUBLISHED}": raw logits and one-hot answers, gate trained on the train split.\n'
            "Parameters and the median time for one image are of the whole set-up that gives the "
            "answer.",
            markdown(per_seed),
        ],
        "What it shows": [_bullets(claims)],
        "What the teacher adds": [
            "The distilled head minus the head without a teacher, on the same images:",
            _bullets(results.teacher_gain()),
        ],
        "Where the two models disagree": [
            markdown(results.disagreement().set_index("seed").map(_short))
        ],
        "What it costs": [markdown(costs.map(_short))],
        "How the answers were read": [_reading(results), _bullets(_gates(run, seeds))],
        "Figures": _pictures(results, costs),
    }
    path = _write(run, "report", f"EmoVLM-KD on {run.source.name}", sections)
    return "\n".join([shown.to_string(), "", *map(str, claims), "", f"The report: {path}"])


def agreement(results: Results, came: Results) -> str:
    """Whether a run's accuracies are those of another of the same seeds, a line for each model: the
    difference with its interval over images."""
    lines = ["Beside the run that came with the course, the same seeds and images:"]
    for model in results.models:
        paired = (results.correct(model).astype(float) - came.correct(model)).mean(0)
        change = bootstrap(paired)
        word = "agrees" if change.low <= 0 <= change.high else "differs"
        lines.append(f"[{word}] {model}: {change.points}")
    return "\n".join(lines)


def _write(run: Run, name: str, title: str, sections: Mapping[str, Sequence[str]]) -> Path:
    parts = [f"# {title}", _about(run)]
    for heading, paragraphs in sections.items():
        parts += [f"## {heading}", *paragraphs]
    path = run.folder / f"{name}.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _bullets(lines: Iterable[object]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _reading(results: Results) -> str:
    seed = results.seeds[0]
    written = results.run.tuned(seed, "generate")
    prompt = results.predictions[seed][TUNED].provenance["prompt"]
    return (
        "Label scoring gives the probabilities above. By *generate and parse* the tuned VLM (seed "
        f"{seed})\nis right on {written.accuracy:.1%} of n = {len(written)} test images, and "
        f"{int(written.invalid.sum())} of its\nanswers name no label.\nPrompt: `{prompt}`"
    )


def _pictures(results: Results, costs: pd.DataFrame) -> list[str]:
    shown = [
        "Where a figure shows single predictions (four-way map, confusion, cues) they are those of "
        f"seed {results.seeds[0]}."
    ]
    table, names = results.table(), results.predictions[results.seeds[0]]
    pair = (names[TUNED], names[VISION], (TUNED, VISION))
    n, cues = len(results.ids), results.run.cues
    set_ups = {VLM_ALONE: TUNED, TOGETHER: BOTH_RUN, EMOVLM_KD: results.final}
    accuracy = table.loc[[set_ups[name] for name in costs.index], ["accuracy", "low", "high"]]
    drawn = {
        "four-way": figures.four_way_map(*pair),
        "oracle-gap": figures.oracle_gap(table, n),
        "confusion": figures.confusion_pair(*pair)[0].figure,
        "cost": figures.cost_accuracy(costs.join(accuracy.set_axis(costs.index)), n=n),
    }
    if cues is not None:
        chosen = {name: names[name] for name in (TUNED, VISION, HEAD, results.final)}
        drawn["cues"] = figures.cue_bars(chosen, cues)
    for name, axes in drawn.items():
        figures.save(axes, results.run.folder / f"{name}.png")
        shown.append(f"![{figures.alt_text(axes)}]({name}.png)")
    return shown


def _gates(run: Run, seeds: Sequence[int]) -> list[str]:
    """A line on each kind of gate: what it was trained on, and whether it passes a side through."""
    lines: dict[str, list[str]] = {}
    for kind in run.profile.gates:
        for seed in seeds:
            answers = run.artefact(stages.gate_logits, seed, *run.gate_settings(kind), "head")
            about = answers.path("gate.txt").read_text(encoding="utf-8")
            lines.setdefault(f"{gate_name(kind)}: {about}", []).append(str(seed))
    return [f"{line}, seed{'s' * (len(of) > 1)} {', '.join(of)}" for line, of in lines.items()]


def write_repeated(results: Repeated) -> str:
    """Write ``repeated.md`` to the runs' folder; returns the text to print."""
    run, table = results.runs[0], results.table()
    each = [f"{100 * r.least:.1f} to {100 * r.greatest:.1f}" for r in table.itertuples()]
    shown = readable(table[["accuracy", "low", "high"]]).assign(**{"single divisions": each})
    gains = [
        f"minus {name}: {results.difference(results.final, name).points}"
        for name in (TUNED, VISION, HEAD, BOTH_RUN)
    ]
    text = (
        "Each division draws train, val and test anew from all images, class by class, and trains "
        f"every part\nagain. {len(results.right[TUNED])} images were tested at least once; "
        "intervals (95 %, bootstrap) are over\nthese images."
    )
    sections = {"Accuracy": [text, markdown(shown)], results.final: [_bullets(gains)]}
    title = f"EmoVLM-KD on {run.source.name}, {len(results.runs)} divisions"
    path = _write(run, "repeated", title, sections)
    lines = [shown.to_string(), "", results.final, _bullets(gains), "", f"The report: {path}"]
    return "\n".join(lines)


def markdown(frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table; the index is the first column."""
    frame = frame.reset_index()
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + " --- |" * len(frame.columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The result table in per cent, with the interval beside the accuracy."""
    shown = pd.DataFrame(index=table.index)
    shown["accuracy %"] = [
        f"{100 * r.accuracy:.1f} [{100 * r.low:.1f}, {100 * r.high:.1f}]"
        for r in table.itertuples()
    ]
    for column in table.columns.drop(["accuracy", "low", "high"]):
        shown[column] = ["" if pd.isna(v) else f"{100 * v:.1f}" for v in table[column]]
    return shown


def _with_costs(shown: pd.DataFrame, costs: pd.DataFrame, final: str) -> pd.DataFrame:
    set_ups = {ZERO_SHOT: VLM_ALONE, TUNED: VLM_ALONE, BOTH_RUN: TOGETHER, final: EMOVLM_KD}
    takes = costs[["parameters", "ms per image"]].loc[list(set_ups.values())].set_axis(set_ups)
    # of the vision model what it adds to the VLM
    takes.loc[VISION] = costs.loc[TOGETHER, ["added parameters", "added ms"]].to_numpy()
    for column, form in {"parameters": "{:,.0f}", "ms per image": "{:.1f}"}.items():
        shown = shown.assign(**{column: takes[column].map(form.format)}).fillna("")
    return shown


def _short(value: object) -> str:
    """A number as read in a table: three digits, thousands set apart."""
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.3g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else str(value)


def _about(run: Run) -> str:
    data = run.dataset
    counts = ", ".join(f"{len(data.split(s))} {s}" for s in ("train", "val", "test"))
    labels = ", ".join(data.label_set.labels)
    text = f"{counts} images; labels: {labels}. Profile `{run.profile.name}`."
    text += f" The scan found: {run.source.found}." * bool(run.source.found)
    if run.source.built_in:
        return text + (
            " These are results on built-in, drawn data: they say nothing about photographs or people "
            "(see the datasheet in `data/emoscenes/`)."
        )
    return text + (
        " TinyVLM, where it is the VLM, was made for drawn scenes and knows no photographs: expect "
        "modest numbers; they show that the method runs, not what it can reach."
    )
