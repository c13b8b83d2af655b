"""The stage `alm export`: from a checkpoint to files of another tool, compared with this alm before publication."""

from __future__ import annotations

import gc
from pathlib import Path

from alm import artifacts, files, kinds
from alm.artifacts import ExportMetadata, FileRecord
from alm.errors import ArtifactError, quoted
from alm.events import Listener, ignore
from alm.export import card, staging
from alm.export.config import TargetConfig
from alm.export.source import Source, load_source
from alm.training.run import run_folder

METADATA_NAME = "export.json"


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
    """Write the model in `checkpoint` into the folder `out`, in the format of the kind of `config`.

    Raises `ArtifactError` if the model cannot be written in that format, if `out` was made from other inputs and
    `force` is not given, and if the other tool computes other results from the files: then none of them are kept.
    """
    source = load_source(checkpoint, on_event=on_event)
    check(config, source, out)
    inputs = [  # with the hashes of the loaded files: training may have saved another checkpoint since
        artifacts.record(source.path, relative_to=out, sha256=source.sha256),
        artifacts.record(source.tokenizer_path, relative_to=out, sha256=source.tokenizer.sha256),
    ]
    return staging.make_once(
        out,
        name=METADATA_NAME,
        label="export",
        what=f"an export to `{out}`",
        made_before=lambda: _made_before(config, inputs, out, force=force, compare=compare, redo=redo),
        make=lambda stage: _made(config, source, inputs, stage, out, compare=compare, redo=redo, on_event=on_event),
        force=force,
        on_event=on_event,
    )


def _made_before(
    config: TargetConfig, inputs: list[FileRecord], out: Path, *, force: bool, compare: bool, redo: str
) -> ExportMetadata | None:
    """Return the metadata in `out` if it is up to date, and compared unless comparing is not requested."""
    values = config.model_dump(mode="json")
    found = artifacts.current(out / METADATA_NAME, ExportMetadata, config=values, inputs=inputs, force=force, redo=redo)
    return found if found is not None and (found.comparisons is not None or not compare) else None


def _made(
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
    """Write the files into `stage`, compare them in the other tool, and describe them."""
    module, values = kinds.module_of(config), config.model_dump(mode="json")
    module.write(config, source, stage)
    source.release_weights()
    comparisons = None
    if compare:
        hint = "please report this with the configuration; `--no-compare` writes the files anyway"
        comparisons = staging.compared(lambda: module.compare(config, source, stage), hint=hint, on_event=on_event)
    files.write_text(stage / card.NAME, card.text(config, source, comparisons, name=config.repo or out.resolve().name))
    gc.collect()  # Windows cannot move a file that the comparing tool still has open
    return ExportMetadata(
        command=redo,
        config=values,
        inputs=tuple(inputs),
        to=values["kind"],
        name=source.name,
        step=source.step,
        parameters=source.parameters,
        tokenizer_sha256=source.tokenizer.sha256,
        comparisons=comparisons,
        files=staging.records(stage),
    )


def _check_place(out: Path, source: Source) -> None:
    """Raise `ArtifactError` if `out` is the folder of a run, whose files have the same names."""
    if run_folder.exists(out) or out.resolve() == source.path.resolve().parent:
        raise ArtifactError(
            f"`{out}` is the folder of a run, whose files an export would replace",
            hint=f"add `--out exports/{quoted(source.name)}`",
        )


def check(config: TargetConfig, source: Source, out: Path) -> None:
    """Raise `ArtifactError` with every reason why the model cannot be written in that format, or not into `out`."""
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
        return "leave out `--dtype`: fp32 holds every value"
    return f"run `alm export --checkpoint {quoted(source.path)} --to safetensors`, which takes any model"
