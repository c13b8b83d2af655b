"""The values on the page of one run, or of several side by side. `alm/templates/report.html` lays them out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alm import formatting, page
from alm.artifacts import Values, flat
from alm.page import Table
from alm.report import chart
from alm.report.chart import Curve
from alm.report.history import SCORE
from alm.report.notes import notes
from alm.report.record import Record
from alm.report.series import NOTHING, Series, smoothed
from alm.training.config import RunConfig
from alm.training.monitoring.metrics import Row
from alm.training.run.lineage import HELD_OUT, Lineage, trace

GENERATOR = "alm report"
MOST_RUNS = 8  # the number of dash patterns that can be distinguished
_MOST_TABLE_ROWS = 40
Parts = dict[str, Any]  # values of the template


@dataclass(frozen=True)
class Shown:
    """A run on the page: its letter (empty for a single run), its name and its dash pattern."""

    record: Record
    name: str
    letter: str
    style: int

    @property
    def title(self) -> str:
        """The heading of its column."""
        return f"{self.letter} {self.name}" if self.letter else self.name


@dataclass(frozen=True)
class Chart:
    """A chart of one value: its title and note, the key of the value, and how to draw it."""

    title: str
    note: str
    key: str
    is_smoothed: bool = False
    from_zero: bool = False
    is_log: bool = False


FIRST = Chart("Bits per byte on held-out text", "lower is better; the bar at the end is a 95% interval", SCORE)
OTHERS = (
    Chart("Training loss", "nats per token, averaged over neighbouring steps", "loss", is_smoothed=True),
    Chart("Learning rate", "of the first parameter group", "lr", from_zero=True),
    Chart(
        "Tokens per second",
        "while it trains: without validation, saving and sampling",
        "tokens_per_second",
        from_zero=True,
    ),
    Chart("Gradient norm", "before clipping, on a logarithmic scale", "gradient_norm", is_log=True),
)


def html(records: Sequence[Record], names: Sequence[str]) -> str:
    """The self-contained page of at least one and at most `MOST_RUNS` runs."""
    letters = [chr(ord("A") + number) if len(records) > 1 else "" for number in range(len(records))]
    runs = [Shown(r, n, letter, i) for i, (r, n, letter) in enumerate(zip(records, names, letters, strict=True))]
    title = " and ".join(names) if len(names) < 3 else f"{len(names)} runs"
    traced = [trace(run.record.folder, run.record.metadata) for run in runs]
    results = _comparison(runs) if len(runs) > 1 else {"comparison": None, "result": _result(runs[0].record, traced[0])}
    shown = (_curves(runs), _samples(runs), _configuration(runs), _lineage(runs, traced), _machine(runs), _notes(runs))
    values = {name: value for part in (results, *shown) for name, value in part.items()}
    return page.render("report.html", generator=GENERATOR, title=title, runs=runs, **values)


# ---- results ---------------------------------------------------------------------------------------------


def _result(record: Record, traced: Lineage) -> Parts:
    pairs = [
        ("bits per byte", formatting.score(*record.used_score()) + record.beside_best()),
        ("validation loss", formatting.optional(record.last("validation_loss"), ".4f")),
        ("training loss", formatting.optional(record.smoothed_loss(), ".4f")),
        ("steps", f"{record.step:,} of {record.max_steps:,}"),
        ("tokens", formatting.optional(record.last("tokens"), ",.0f")),
        ("parameters", f"{record.metadata.parameters:,}"),
        ("time in steps", formatting.duration(record.seconds)),
        ("tokens per second", formatting.optional(record.typical("tokens_per_second"), ",.0f")),
    ]
    return {
        "is_finished": record.is_finished,
        "sentence": _sentence(record, dict(traced.facts).get(HELD_OUT)),
        "verdict": record.verdict(),
        "facts": [(name, value) for name, value in pairs if value],
    }


def _sentence(record: Record, held_out: str | None) -> str:
    """The progress and the score of a run, and what the score measures."""
    score = formatting.score(*record.used_score())
    measured = f" ({held_out})" if held_out else ""
    return f"The run is {record.progress()}." + (
        f" It needs {score} bits for a byte of held-out text{measured}{record.beside_best()}." if score else ""
    )


def _comparison(runs: Sequence[Shown]) -> Parts:
    columns = ["run", "bits per byte", f"difference to {runs[0].letter}", "validation loss", "training loss"]
    columns += ["steps", "tokens", "time", "parameters", "finished"]
    rows = [[run.letter, *_final(run.record, runs[0].record)] for run in runs]
    return {"comparison": Table(columns, rows), "comparable": _comparable(runs)}


def _final(record: Record, first: Record) -> list[str]:
    (score, margin), (base, _) = record.used_score(), first.used_score()
    difference = "" if record is first or score is None or base is None else f"{score - base:+.4f}"
    return [
        formatting.score(score, margin),
        difference,
        formatting.optional(record.last("validation_loss"), ".4f"),
        formatting.optional(record.smoothed_loss(), ".4f"),
        f"{record.step:,}",
        formatting.optional(record.last("tokens"), ",.0f"),
        formatting.duration(record.seconds),
        f"{record.metadata.parameters:,}",
        "yes" if record.is_finished else "no",
    ]


def _comparable(runs: Sequence[Shown]) -> str:
    """A sentence on which differences in the table are meaningful."""
    data = {run.record.metadata.data_sha256 for run in runs}
    tokenizers = {run.record.metadata.tokenizer_sha256 for run in runs}
    parts = {str(dict(flat(run.record.config)).get("validation.bytes")) for run in runs}
    if len(data) == 1 and len(parts) > 1:
        return (
            "The runs were scored on different amounts of the same text: a difference within the wider margin says "
            "little."
        )
    if len(data) == 1:
        return (
            "All runs were scored on rows of the same text. The margin says how much another text could change a "
            "score; it would move all scores in the same way, so a difference is more certain than either score."
        )
    losses = "" if len(tokenizers) == 1 else " Losses are per token, of different tokenizers: they cannot be compared."
    return (
        "The runs read data that was packed differently, perhaps other text: a difference within their margins says "
        f"nothing.{losses}"
    )


# ---- curves ------------------------------------------------------------------------------------------------


def _curves(runs: Sequence[Shown]) -> Parts:
    figures = [figure for each in (FIRST, *OTHERS) if (figure := _figure(each, runs))]
    return {"figures": figures, "has_score": any(len(run.record.series(SCORE)) for run in runs)}


def _figure(what: Chart, runs: Sequence[Shown]) -> Parts | None:
    points = {run.letter: run.record.series(what.key) for run in runs}
    curves = [_curve(what, run, points[run.letter], is_alone=len(runs) == 1) for run in runs]
    if not any(curve.values for curve in curves):
        return None
    per_step = {run.record.tokens_per_step for run in runs}
    drawn = chart.plot(
        what.title,
        curves,
        last_step=max(int(given.steps[-1]) for given in points.values() if len(given)) or 1,
        tokens_per_step=per_step.pop() if len(per_step) == 1 else None,
        from_zero=what.from_zero,
        is_log=what.is_log,
    )
    return {"chart": what, "drawn": drawn, "points": _values(runs, points)}


def _curve(what: Chart, run: Shown, points: Series, *, is_alone: bool) -> Curve:
    return Curve(
        smoothed(points) if what.is_smoothed else points,
        name=run.letter,
        pale=points if what.is_smoothed and is_alone else NOTHING,
        margin=run.record.margin() if what.key == SCORE else None,
        style=run.style,
    )


def _values(runs: Sequence[Shown], points: dict[str, Series]) -> Table:
    """A table of some of the values, for readers who cannot see the chart."""
    steps = np.unique(np.concatenate([given.steps for given in points.values()]))
    # Counted from the end, so that the newest step is always in the table.
    chosen = steps[:: -max(1, -(-len(steps) // _MOST_TABLE_ROWS))][::-1].tolist()
    rows = [[f"{step:,}", *(_shown(points[run.letter].at(step)) for run in runs)] for step in chosen]
    return Table(["step", *(run.title for run in runs)], rows)


def _shown(value: float | None) -> str:
    return "" if value is None else chart.shown(value)


# ---- samples -----------------------------------------------------------------------------------------------


def _samples(runs: Sequence[Shown]) -> Parts:
    samples = [row for run in runs for row in run.record.samples]
    sampling = {f"temperature {row.get('temperature')}, top-k {row.get('top_k')}" for row in samples}
    prompts = [_prompt(prompt, runs) for prompt in dict.fromkeys(row["prompt"] for row in samples)]
    return {"sampling": " or ".join(sorted(sampling)), "prompts": prompts}


def _prompt(prompt: str, runs: Sequence[Shown]) -> Parts:
    """The title of a prompt, and its texts with their titles: all in one row, or a row per step of several runs."""
    shown = " ".join(prompt.split())
    rows: dict[int, list[tuple[str, str]]] = {}
    for run in runs:
        for row in _written(run.record, prompt):
            title = f"{f'{run.letter}, ' if run.letter else ''}step {row['step']:,}"
            rows.setdefault(row["step"] if run.letter else 0, []).append((title, row["text"]))
    title = f"After “{shown}”" if shown else "From the beginning of a document"
    return {"title": title, "rows": [texts for _, texts in sorted(rows.items())]}


def _written(record: Record, prompt: str) -> list[Row]:
    return sorted((row for row in record.samples if row["prompt"] == prompt), key=lambda row: row["step"])


# ---- configuration, lineage, machine -----------------------------------------------------------------------


def _configuration(runs: Sequence[Shown]) -> Parts:
    settings = [dict(flat(run.record.config)) for run in runs]
    keys = list(dict.fromkeys(key for values in settings for key in values))
    different = [key for key in keys if len({_text(values.get(key)) for values in settings}) > 1]

    def cell(number: int, key: str) -> str:
        return _text(settings[number].get(key))

    unusual = _unusual(settings[0]) if len(runs) == 1 else _table_of(runs, different, cell)
    return {"settings": _table_of(runs, keys, cell), "unusual": unusual if unusual.rows else None}


def _unusual(settings: Values) -> Table:
    usual = dict(flat(RunConfig().model_dump(mode="json")))
    rows = [(key, _text(value), _text(usual.get(key))) for key, value in settings.items() if value != usual.get(key)]
    return Table(("", "value", "default"), rows, breaks_words=True)


def _text(value: object) -> str:
    """A setting as YAML writes it; empty if it is None."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table_of(runs: Sequence[Shown], keys: Iterable[str], cell: Callable[[int, str], str]) -> Table:
    """A table with a row per key and a column per run, or one column if all runs agree."""
    rows = [(key, *(cell(number, key) for number in range(len(runs)))) for key in keys]
    if len(runs) > 1 and all(len(set(row[1:])) == 1 for row in rows):
        return Table(["", "all runs"], [row[:2] for row in rows], breaks_words=True)
    return Table(["", *(run.title for run in runs)], rows, breaks_words=True)


def _lineage(runs: Sequence[Shown], traced: Sequence[Lineage]) -> Parts:
    keys = list(dict.fromkeys(name for found in traced for name, _ in found.facts))
    facts = [dict(found.facts) for found in traced]
    lineages = []
    for number, (run, found) in enumerate(zip(runs, traced, strict=True)):
        of = [r.letter for r, other in zip(runs, traced, strict=True) if other.sources == found.sources]
        is_first = found.sources not in [other.sources for other in traced[:number]]
        lineages.append(
            {
                "faults": [f"{run.letter} {fault}".strip() for fault in found.faults],
                "title": f"Sources of {', '.join(of)}" if of[0] else "Sources",
                "sources": _sources(found) if found.sources and is_first else None,
            }
        )
    return {"lineage": _table_of(runs, keys, lambda i, key: facts[i].get(key, "")), "lineages": lineages}


def _sources(found: Lineage) -> Table:
    columns = ("source", "kind", "licence", "revision", "documents", "text", "training tokens", "held-out tokens")
    rows = [
        (
            source.name,
            source.kind or "",
            source.licence or ("not stated" if source.is_clean_text_known else "clean text not found"),
            (source.revision or "")[:12],
            source.documents,
            formatting.size(source.bytes),
            source.tokens,
            source.held_out_tokens,
        )
        for source in found.sources
    ]
    return Table(columns, rows)


def _machine(runs: Sequence[Shown]) -> Parts:
    speed = [_speed(run.record) for run in runs]
    environment = [dict(run.record.metadata.environment) for run in runs]
    keys = list(dict.fromkeys(key for values in environment for key in values))
    return {
        "speed": _table_of(runs, speed[0], lambda i, key: speed[i][key]),
        "environment": _table_of(runs, keys, lambda i, key: environment[i].get(key, "")),
    }


def _speed(record: Record) -> dict[str, str]:
    memory = record.last("memory_bytes")
    return {
        "tokens per second, median": formatting.optional(record.typical("tokens_per_second"), ",.0f"),
        "seconds a step, median": formatting.optional(record.typical("step_seconds"), ".4f"),
        "use of the device (MFU), median": formatting.optional(record.typical("mfu"), ".1%"),
        "waiting for data, median": formatting.optional(record.typical("data_wait_share"), ".1%"),
        "most memory": "" if memory is None else formatting.size(memory),
        "time in steps": formatting.duration(record.seconds),
    }


def _notes(runs: Sequence[Shown]) -> Parts:
    found = [(run, note) for run in runs for note in notes(run.record)]
    return {"notes": [(f"{run.letter} {note.text}".strip(), note.is_bad) for run, note in found]}
