"""The stage `alm quantize`: from a checkpoint to a folder with its weights as int8 or int4, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from alm import artifacts, files
from alm.artifacts import QuantizedCost, QuantizedMetadata
from alm.checkpoint.format import QUANTIZED_NAME
from alm.config.yaml_files import write_yaml
from alm.errors import ArtifactError, ConfigError, shell
from alm.events import Listener, Noted, Progressed, Warned, ignore
from alm.export import quantize_cost, quantize_text, staging
from alm.export.quantize_text import Texts
from alm.export.source import Source, load_source
from alm.quant.calibrate import count_types, quantized
from alm.quant.codes import Int4Matrix, Matrix, TypeName
from alm.quant.file import METADATA_NAME, Block, QuantizedModel, write
from alm.quant.network import network
from alm.tokenizers import ends
from alm.training.run import run_folder

SAMPLES = 200
_KEPT = (run_folder.CHAT_TEMPLATE_NAME, ends.NAME)


def quantize(
    checkpoint: Path,
    *,
    to: TypeName,
    out: Path,
    tables: TypeName | None = None,
    text: Sequence[Path] = (),
    samples: int = SAMPLES,
    force: bool = False,
    redo: str = "alm quantize",
    on_event: Listener = ignore,
) -> QuantizedMetadata:
    """Round the weights of the model in `checkpoint`, and write them into the folder `out`.

    `tables` is the type of the embedding and the output matrix (absent: chosen by what it costs). int4 is calibrated on
    `text`, or on the text that the run was trained on. The cost of rounding is measured on a part that is held out, and
    `samples` texts of both models show how many words they misspell.

    Raises `ArtifactError` if the rounded model is much worse than usual, or if `out` was made from other inputs, both
    unless `force` is given.
    """
    source = load_source(checkpoint, on_event=on_event)
    check(source, out, to=to, tables=tables, text=text)
    inputs = [
        artifacts.record(source.path, relative_to=out, sha256=source.sha256),
        artifacts.record(source.tokenizer_path, relative_to=out, sha256=source.tokenizer.sha256),
    ]
    data = list(text) or quantize_text.data_of(source)
    inputs += [artifacts.record(path, relative_to=out) for path in data]
    values = {"to": to, "tables": tables, "samples": samples}

    def made_before() -> QuantizedMetadata | None:
        name = out / METADATA_NAME
        return artifacts.current(name, QuantizedMetadata, config=values, inputs=inputs, force=force, redo=redo)

    def make(stage: Path) -> QuantizedMetadata:
        texts = _texts(source, text, to, on_event)
        before, after = source.network, source.network
        source.release_weights()
        on_event(Noted(f"rounding {source.parameters:,} weights to {to}"))
        calibration = [] if texts is None else [batch.inputs for batch in texts.calibration]
        weights = quantized(after, to, tables=tables, text=calibration, on_block=_progress(on_event))
        block = Block(
            to=to,
            model=source.model,
            step=source.step,
            tokenizer_sha256=source.tokenizer.sha256,
            source_sha256=source.sha256,
        )
        _write(source, QuantizedModel(block, weights), stage)
        cost: QuantizedCost | None = None
        if texts is not None:
            on_event(Noted(f"measuring what it costs on {texts.name}"))
            model = network(source.model, weights)
            cost = quantize_cost.cost(before, model, source.tokenizer, texts, samples=samples)
            _refuse(cost, source, weights, to, force=force, on_event=on_event)
        return QuantizedMetadata(
            command=redo,
            config=values,
            inputs=tuple(inputs),
            to=to,
            name=source.name,
            step=source.step,
            parameters=source.parameters,
            bytes_before=4 * source.parameters,
            tokenizer_sha256=source.tokenizer.sha256,
            tensors=count_types(weights),
            calibration=None if texts is None or to == "int8" else texts.calibration_name,
            cost=cost,
            files=staging.records(stage),
        )

    return staging.make_once(
        out,
        name=METADATA_NAME,
        label="quantize",
        what=f"quantized weights to `{out}`",
        made_before=made_before,
        make=make,
        force=force,
        on_event=on_event,
    )


def check(
    source: Source, out: Path, *, to: TypeName, tables: TypeName | None = None, text: Sequence[Path] = ()
) -> None:
    """Raise `AlmError` if the model cannot be rounded, not to these types, not into `out`, or not with this text."""
    if to == "int8" and tables == "int4":
        raise ConfigError("`--tables int4` is for `--to int4`", hint="leave out `--tables`, or use `--to int4`")
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"`{out}` is a file", hint=f"add `{shell('--out', f'{out}-quantized')}`")
    for path in text:
        files.read_text(path)
    if source.codes:
        raise ArtifactError(
            f"`{source.path}` is quantized already", hint="name the run or the checkpoint that it was made from"
        )
    if run_folder.exists(out) or out.resolve() == source.path.resolve().parent:
        raise ArtifactError(
            f"`{out}` is the folder of a run",
            hint=f"add `{shell('--out', default_out(out / QUANTIZED_NAME, 'quantized'))}`",
        )
    if broken := source.not_finite():
        raise ArtifactError(
            f"`{broken[0]}` has values that are not finite: the training diverged", hint="use an earlier checkpoint"
        )


def _progress(on_event: Listener) -> Callable[[int, int], None]:
    return lambda done, total: on_event(Progressed("rounding", done, total, "layers"))


def _texts(source: Source, paths: Sequence[Path], to: str, on_event: Listener) -> Texts | None:
    """Return the text to calibrate and to measure on; a warning if there is none."""
    if paths:
        return quantize_text.of_files(paths, source)
    found = quantize_text.of_run(source)
    if isinstance(found, str):
        what = "the weights are rounded without calibration, and " if to == "int4" else ""
        on_event(
            Warned(
                f"{what}what rounding costs is not measured: {found}",
                "add `--text FILE` with some pages like those the model will write",
            )
        )
        return None
    return found


def _write(source: Source, model: QuantizedModel, stage: Path) -> None:
    """Write the weights, and beside them what belongs to the model."""
    write(stage / QUANTIZED_NAME, model)
    files.write_text(stage / run_folder.CONFIG_NAME, write_yaml({"model": source.model.model_dump(mode="json")}))
    files.write_bytes(stage / run_folder.TOKENIZER_NAME, files.read_bytes(source.tokenizer_path))
    for name in _KEPT:
        beside = source.path.with_name(name)
        if beside.is_file():
            files.write_bytes(stage / name, files.read_bytes(beside))


def _refuse(
    cost: QuantizedCost,
    source: Source,
    weights: Mapping[str, Tensor | Matrix],
    to: str,
    *,
    force: bool,
    on_event: Listener,
) -> None:
    """Raise `ArtifactError` if rounding costs too much; with `force` it is a warning."""
    reasons = quantize_cost.refusals(cost, to)
    if not reasons:
        return
    message = "\n  ".join([f"`{source.path}` in {to} is much worse, so nothing was kept:", *reasons])
    if not force:
        better = "use `--to int8`" if to == "int4" else "keep the checkpoint as it is"
        if isinstance(weights["model.embed_tokens.weight"], Int4Matrix):
            better = "use `--tables int8`, or `--to int8`"
        raise ArtifactError(message, hint=f"{better}; `--force` keeps it anyway")
    on_event(Warned(message.replace(", so nothing was kept", "")))


def lines(made: QuantizedMetadata) -> list[str]:
    """Describe the size and the cost, a line each."""
    from alm.formatting import size

    found = [f"{_counted(made)}, {size(stored_bytes(made))} instead of {size(made.bytes_before)}"]
    cost = made.cost
    if cost is None:
        return found
    margin = "" if cost.difference_margin is None else f" \u00b1 {cost.difference_margin:.4f}"
    difference = cost.bits_per_byte - cost.bits_per_byte_before
    found.append(f"{cost.bits_per_byte:.4f} bits/byte, {difference:+.4f}{margin}, on {cost.tokens:,} tokens held out")
    found.append(
        f"KL {cost.kl_mean:.5f} nats a token, 99% below {cost.kl_99:.4f}; {cost.same_top:.1%} same first choice"
    )
    if cost.non_words is not None and cost.non_words_before is not None:
        chance = "" if cost.non_words_margin is None else f" \u00b1 {100 * cost.non_words_margin:.2f}"
        more = cost.non_words - cost.non_words_before
        found.append(f"non-words in sampled text: {cost.non_words:.2%}, {100 * more:+.2f}{chance} percentage points")
    return found


def stored_bytes(made: QuantizedMetadata) -> int:
    """Return the size of the file of weights."""
    return sum(file.bytes for file in made.files if file.path == QUANTIZED_NAME)


def _counted(made: QuantizedMetadata) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(made.tensors.items(), key=lambda pair: -pair[1]))


def default_out(checkpoint: Path, to: str) -> Path:
    """Return the folder for the quantized model of `checkpoint`: beside its run."""
    run = checkpoint.parent
    name = f"{run.resolve().name}-{to}"
    return run.with_name(name) if run.name not in ("", "..") else run / ".." / name


def type_named(name: str, *, flag: str) -> TypeName:
    """Return the type `name`. Raises `ConfigError` for another name."""
    known: dict[str, TypeName] = {"int8": "int8", "int4": "int4"}
    if name not in known:
        raise ConfigError(
            f"`{flag} {name}` is not a type of rounded weights",
            hint=f"use `{flag} int8` or `int4`; for llama.cpp's own types: `alm export --to gguf --dtype q8_0`",
        )
    return known[name]
