"""The stage `alm export`: a checkpoint in, files of another tool out, compared with this alm before they are shown."""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType

from alm import artifacts, files, kinds
from alm.artifacts import Comparison, ExportMetadata, FileRecord
from alm.errors import ArtifactError, quoted
from alm.events import Listener, Noted, Warned, ignore
from alm.export import card, peers, placing
from alm.export.config import TargetConfig
from alm.export.source import Source, load_source
from alm.training import run

METADATA_NAME = "export.json"
_LABEL = "export"
_FAR_HINT = "please report this with the configuration; `--no-compare` writes the files all the same"


def export(
    config: TargetConfig,
    *,
    checkpoint: Path,
    out: Path,
    force: bool = False,
    compare: bool = True,
    redo: str = "alm export",
    on_event: Listener = ignore,
) -> ExportMetadata:
    """Write the model in `checkpoint` into the folder `out`, as the kind of `config` has it.

    Raises `ArtifactError` when the model cannot be written in that form, when `out` holds something made from other
    inputs and `force` is not given, and when the other tool makes something else of the files: then none of them stay.
    """
    source = load_source(checkpoint, on_event=on_event)
    check(config, source, out)
    inputs = [  # by the hashes of what was loaded: training may have saved another one by now
        artifacts.record(source.path, relative_to=out, sha256=source.sha256),
        artifacts.record(source.tokenizer_path, relative_to=out, sha256=source.tokenizer.sha256),
    ]
    made = _made(config, inputs, out, force=force, compare=compare, redo=redo)
    if made is None:
        with files.workspace(out, _LABEL, what=f"an export to `{out}`") as stage:
            # Again, as another process may have had the lock until now.
            made = _made(config, inputs, out, force=force, compare=compare, redo=redo)
            if made is None:
                metadata = _written(config, source, inputs, stage, out, compare=compare, redo=redo, on_event=on_event)
                placing.publish(stage, out, metadata, name=METADATA_NAME, force=force)
                return metadata
    files.sweep(out, _LABEL)
    on_event(Noted(f"`{out}` is up to date"))
    return made


def _made(
    config: TargetConfig, inputs: list[FileRecord], out: Path, *, force: bool, compare: bool, redo: str
) -> ExportMetadata | None:
    """What `out` holds already, if it was compared or need not be."""
    values = config.model_dump(mode="json")
    found = artifacts.current(out / METADATA_NAME, ExportMetadata, config=values, inputs=inputs, force=force, redo=redo)
    return found if found is not None and (found.comparisons is not None or not compare) else None


def _written(
    config: TargetConfig,
    source: Source,
    inputs: list[FileRecord],
    stage: Path,
    out: Path,
    *,
    compare: bool,
    redo: str,
    on_event: Listener,
) -> ExportMetadata:
    """Write the files into `stage`, have the other tool read them, and describe them."""
    module, values = kinds.module_of(config), config.model_dump(mode="json")
    module.write(config, source, stage)
    comparisons = _compared(module, config, source, stage, on_event) if compare else None
    files.write_text(stage / card.NAME, card.text(config, source, comparisons, name=config.repo or out.resolve().name))
    gc.collect()  # Windows moves no file that a tool which compared it still has open
    return ExportMetadata(
        command=redo,
        config=values,
        inputs=tuple(inputs),
        to=values["kind"],
        name=source.name,
        step=source.step,
        parameters=source.parameters,
        tokenizer_sha256=source.tokenizer.sha256,
        comparisons=None if comparisons is None else tuple(comparisons),
        files=placing.records(stage),
    )


def _check_place(out: Path, source: Source) -> None:
    """`ArtifactError` for the folder of a run, whose files have the same names."""
    if run.exists(out) or out.resolve() == source.path.resolve().parent:
        raise ArtifactError(
            f"`{out}` is the folder of a run, whose files an export would replace",
            hint=f"add `--out exports/{quoted(source.name)}`",
        )


def check(config: TargetConfig, source: Source, out: Path) -> None:
    """`ArtifactError` with every reason why the model cannot be written in that form, or not into `out`."""
    _check_place(out, source)
    broken = source.not_finite()
    reasons = [f"`{broken[0]}` has values that are not finite: the training diverged"] if broken else []
    reasons = reasons or kinds.module_of(config).refusals(config, source)
    if reasons:
        kind = config.model_dump()["kind"]
        hint = "use an earlier checkpoint" if broken else _other_kind(kind, source)
        raise ArtifactError("\n  ".join([f"`{source.path}` cannot be exported to {kind}:", *reasons]), hint=hint)


def _other_kind(kind: str, source: Source) -> str:
    if kind == "safetensors":
        return "leave out `--dtype`: fp32 holds everything"
    return f"run `alm export --checkpoint {quoted(source.path)} --to safetensors`, which takes any model"


def _compared(
    module: ModuleType, config: TargetConfig, source: Source, stage: Path, on_event: Listener
) -> list[Comparison] | None:
    """What the other tool makes of the files in `stage`; None, with a warning, where it cannot be used."""
    try:
        return placing.checked(module.compare(config, source, stage), hint=_FAR_HINT)
    except peers.UnusableToolError as error:
        on_event(Warned(f"not compared: {error.message}", error.hint))
        return None
