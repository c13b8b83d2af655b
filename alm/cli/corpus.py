"""`alm corpus prepare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui

app = typer.Typer(help="Prepare clean text.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Prepare clean text."""


@app.command(epilog="Examples:  alm corpus prepare my-texts/ notes.jsonl.gz    alm corpus prepare --src tales")
def prepare(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files and folders to read instead of a corpus file.", show_default=False)
    ] = None,
    src: Annotated[str, typer.Option("--src", help="Corpus file: a path, or the name of a preset.")] = "corpus",
    out: options.Out = Path("data/clean"),
    only: Annotated[list[str] | None, typer.Option("--only", help="Prepare this source alone; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most documents of each source.")] = None,
    force: options.Force = False,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Read text from files, folders, Hugging Face or the built-in tales, and write it clean."""
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.corpus.config import CorpusConfig, values_for_paths
    from alm.corpus.prepare import plan
    from alm.corpus.prepare import prepare as run

    given = paths or []
    parts = [] if given else [Part(presets.find(src))]
    config = load(CorpusConfig, parts, base=values_for_paths(given), overrides=set_ or [])
    changes = [word for override in set_ or [] for word in ("--set", override)]
    changes += ["--limit", str(limit)] if limit else []
    redo = shlex.join(["alm", "corpus", "prepare", *(given or ["--src", src]), "--out", str(out), *changes])
    if dry_run:
        jobs = plan(config, out=out, only=only or [], limit=limit, force=force, redo=redo)
        states = {job.name: "up to date" if job.current(job.inputs()) else "to be made" for job in jobs}
        ui.show_result({"sources": states}, ui.table(list(states.items())), as_json=json)
        return
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event:
        found = run(config, out=out, only=only or [], limit=limit, force=force, redo=redo, on_event=on_event)
    lines = [line for source in found for line in _lines(source)]
    ui.show_result({"sources": [s.model_dump(mode="json") for s in found]}, lines, as_json=json)
    ui.next_step("alm", "tokenizer", "train", "--input", out, quiet=quiet, as_json=json)


def _lines(source: object) -> list[str]:
    from alm.artifacts import SourceMetadata

    assert isinstance(source, SourceMetadata)
    dropped = ", ".join(f"{number:,} {reason}" for reason, number in source.documents.dropped.items())
    return [
        f"{source.source}: {source.documents.output:,} documents, {ui.size(source.bytes.output)}, "
        f"{source.validation_documents:,} held out" + (f"; dropped {dropped}" if dropped else "")
    ]
