"""Model card of an export (README.md): shape, data, training cost, and comparisons."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from alm import artifacts, kinds, shown
from alm.artifacts import SHORT_HASH, Comparison, ImportMetadata, QuantizedMetadata, RunMetadata
from alm.errors import AlmError
from alm.export import hf_config
from alm.export.config import TargetConfig
from alm.export.importing import METADATA_NAME as IMPORT_NAME
from alm.export.markdown import Markdown, code, inert, table
from alm.export.quantizing import lines
from alm.export.source import Source
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.quant.file import METADATA_NAME as QUANTIZED_NAME
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.monitoring.metrics import Row
from alm.training.run import run_folder
from alm.training.run.lineage import Lineage, trace
from alm.version import __version__

NAME = "README.md"
_MOST_SCORES = 12
_SECONDS_OF_HOUR, _MINUTES_OF_HOUR = 3600, 60


def text(config: TargetConfig, source: Source, comparisons: Sequence[Comparison] | None, *, name: str) -> str:
    """Write the page in Markdown, with the front matter that the hub reads. `name` is the name users load it by."""
    training = _Training.of(source) if source.run is not None else None
    usage: str = kinds.module_of(config).usage(config, source, name)
    parts = [
        _front_matter(config, source),
        f"# {inert(config.title or name)}",
        _summary(source, training),
        "## Use",
        usage,
        "## Model",
        table(("", ""), _shape(source)),
        *_cost(source),
        *(training.sections() if training is not None else []),
        "## Compared",
        *_compared(comparisons),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(config: TargetConfig, source: Source) -> str:
    """Write the front matter, values quoted as JSON, which is valid YAML: a licence may be any text."""
    tags = ["alm", hf_config.family(source.model), config.model_dump()["kind"]]
    licence = [f"license: {shown.as_json(config.licence)}"] if config.licence else []
    return "\n".join(["---", *licence, "pipeline_tag: text-generation", f"tags: {shown.as_json(tags)}", "---"])


def _summary(source: Source, training: _Training | None) -> str:
    made = f"A language model of {source.parameters:,} parameters"
    if training is None:
        return f"{made}, {_origin(source)} (alm {__version__})."
    version = inert(training.metadata.alm_version)
    if not training.tokens:
        return f"{made}, trained with alm {version}; the record of its steps is not there."
    return f"{made}, trained with alm {version} on {training.tokens:,} tokens."


def _origin(source: Source) -> str:
    """Describe the origin of a checkpoint without a run."""
    with contextlib.suppress(AlmError):
        rounded = _rounded(source)
        return f"rounded to {inert(rounded.to)} from step {rounded.step:,} of {inert(rounded.name)}"
    with contextlib.suppress(AlmError):
        made = artifacts.read(source.path.with_name(IMPORT_NAME), ImportMetadata, hint="")
        weights = ", ".join(_short(each.sha256) for each in made.inputs)
        architecture, kind = inert(made.architecture), inert(made.kind)
        return f"the weights of a {architecture} that was imported from {kind} files, sha256 {weights}"
    return f"from a checkpoint of step {source.step:,} without the record of its run"


def _rounded(source: Source) -> QuantizedMetadata:
    return artifacts.read(source.path.with_name(QUANTIZED_NAME), QuantizedMetadata, hint="")


def _cost(source: Source) -> list[str]:
    """Describe what the rounding of a quantized model costs, as a section."""
    if not source.codes:
        return []
    with contextlib.suppress(AlmError):
        found = "\n".join(f"- {inert(each)}" for each in lines(_rounded(source)))
        note = "The weights were rounded as below. These files hold the rounded values; their own size is another one."
        return ["## Rounded", note, found]
    return []


def _shape(source: Source) -> list[tuple[str, str]]:
    model = source.model
    rows = [
        ("parameters", f"{source.parameters:,}"),
        ("layers", str(model.n_layers)),
        ("width", f"{model.d_model:,}, {model.ffn_hidden_size:,} inside the feed-forward layers"),
        ("heads", f"{model.n_heads} of width {model.head_width}, {model.n_kv_heads} for keys and values"),
        ("context", f"{model.max_position_embeddings:,} tokens"),
        ("vocabulary", _vocabulary(source)),
        ("positions", _positions(model)),
        ("embeddings", "tied" if model.tie_embeddings else "not tied"),
    ]
    return [*rows, ("queries and keys", "normalized in each head")] if model.qk_norm else rows


def _short(sha256: str) -> Markdown:
    return code(sha256[:SHORT_HASH])


def _vocabulary(source: Source) -> Markdown:
    known, rows = source.tokenizer.vocab_size, source.model.known_vocab_size
    spare = f", {rows - known:,} more rows that stand for nothing" if rows > known else ""
    kind, pattern = inert(source.tokenizer.kind), code(source.tokenizer.pattern)
    return Markdown(f"{known:,} tokens{spare}, {kind}, split {pattern}")


def _positions(model: ModelConfig) -> str:
    values = model.positions.model_dump()
    if values["kind"] != "rope":
        return str(values["kind"])
    scaling = values["scaling"]
    how = "" if scaling["method"] == "none" else f", {scaling['method']} x {scaling['factor']:g}"
    return f"rope, base {model.rope_theta:g}{how}"


@dataclass(frozen=True)
class _Training:
    """Facts from the run's own files, up to the step of the checkpoint; `last_score` is that of the run."""

    metadata: RunMetadata
    config: RunConfig
    rows: tuple[Row, ...]
    step: int
    lineage: Lineage
    last_score: Row | None

    @classmethod
    def of(cls, source: Source) -> _Training:
        assert source.run is not None
        metadata = run_folder.read_metadata(source.run)
        every = metrics.read(source.run)
        rows = tuple(row for row in every if row["step"] <= source.step)
        last = next((row for row in reversed(every) if "bits_per_byte" in row), None)
        config, lineage = run_folder.read_config(source.run), trace(source.run, metadata)
        return cls(metadata, config, rows, source.step, lineage, last)

    @property
    def tokens_per_step(self) -> int:
        """The tokens that one update trains on."""
        counted = [row for row in self.rows if row.get("tokens") and row["step"]]
        return round(counted[-1]["tokens"] / counted[-1]["step"]) if counted else 0

    @property
    def tokens(self) -> int:
        """The tokens trained on, repetitions included."""
        return self.step * self.tokens_per_step

    @property
    def scores(self) -> list[Row]:
        """The metrics rows of validations."""
        return [row for row in self.rows if "bits_per_byte" in row]

    def sections(self) -> list[str]:
        """Write the sections on data, training and curve."""
        curve = ["## Curve", table(("step", "tokens", "bits per byte"), self._curve())] if self.scores else []
        return ["## Data", *self._data(), "## Training", table(("", ""), self._facts()), *curve]

    def _data(self) -> list[str]:
        if not self.lineage.sources:
            return [f"{inert(fault)}." for fault in self.lineage.faults] or ["Nothing is known of it."]
        columns = ("source", "kind", "licence", "revision", "documents", "bytes of text", "training tokens")
        rows = [
            (
                source.name,
                source.kind or "",
                source.licence or ("not stated" if source.is_clean_text_known else "clean text not found"),
                source.revision or "",
                f"{source.documents:,}",
                f"{source.bytes:,}",
                f"{source.tokens:,}",
            )
            for source in self.lineage.sources
        ]
        hashes = [(key, value) for key, value in self.lineage.facts if key in ("data sha256", "tokenizer sha256")]
        return [table(columns, rows), ", ".join(f"{key} {_short(value)}" for key, value in hashes) + "."]

    def _facts(self) -> list[tuple[str, str]]:
        environment = self.metadata.environment
        rows = [
            ("steps", f"{self.step:,} of {self.config.training.max_steps:,}"),
            *(self._spent() if self.tokens else []),
            ("device", f"{environment.get('device_name', '')} ({environment.get('device', '')})"),
            ("ranks", environment.get("ranks", "1")),
            ("precision", environment.get("precision", "")),
            ("optimizer", str(self.config.optim.model_dump()["kind"])),
        ]
        initial = self.metadata.initial_weights
        if initial is not None:
            rows.append(("begun from", Markdown(f"another checkpoint, sha256 {_short(initial.sha256)}")))
        if self.scores:
            rows.append(("bits per byte of held-out text", self._score(self.scores[-1])))
        return rows

    def _spent(self) -> list[tuple[str, str]]:
        return [
            ("tokens", f"{self.tokens:,}, {self.tokens_per_step:,} a step"),
            ("arithmetic", f"{self._flops():.2e} floating-point operations"),
            ("time in steps", _duration(metrics.training_seconds(self.rows))),
        ]

    def _flops(self) -> float:
        sequence = max(self.tokens_per_step // self.config.training.sequences_per_step, 1)
        return self.tokens * count(self.config.model).training_flops_per_token(sequence)

    def _score(self, row: Row) -> str:
        margin = row.get("bits_per_byte_margin")
        known = f" ± {margin:.4f}" if margin else ""
        found = f"{row['bits_per_byte']:.4f}{known}"
        if row["step"] != self.step:
            return f"{found}, at step {row['step']:,}"
        last = self.last_score
        if last is None or last["step"] == self.step:
            return found
        return f"{found}; the run ended with {last['bits_per_byte']:.4f} at step {last['step']:,}"

    def _curve(self) -> list[tuple[str, ...]]:
        """List the scores, evenly spaced if there are many; the first and the last are always included."""
        last = len(self.scores) - 1
        taken = sorted({round(number * last / (_MOST_SCORES - 1)) for number in range(_MOST_SCORES)})
        return [
            (f"{row['step']:,}", f"{row['step'] * self.tokens_per_step:,}", f"{row['bits_per_byte']:.4f}")
            for row in (self.scores[number] for number in taken)
        ]


def _duration(seconds: float) -> str:
    hours = seconds / _SECONDS_OF_HOUR
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * _MINUTES_OF_HOUR:.1f} minutes"


def _compared(comparisons: Sequence[Comparison] | None) -> list[str]:
    if comparisons is None:
        return ["The files were not compared with what alm makes of the same model."]
    columns = ("what", "difference", "at most", "with", "")
    rows = [
        (one.what, f"{one.difference:.2g}", "" if one.bar is None else f"{one.bar:g}", one.tool, one.detail)
        for one in comparisons
    ]
    return ["What this tool makes of the files, beside alm itself:", table(columns, rows)]
