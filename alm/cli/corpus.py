"""`alm corpus prepare`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands

if TYPE_CHECKING:
    from alm.artifacts import SourceMetadata
    from alm.corpus.pipeline.job import CorpusJob

app = Commands(help="Prepare clean text.", no_args_is_help=True)


@app.command(examples=("alm corpus prepare my-texts/ notes.jsonl.gz", "alm corpus prepare --src tales"))
def prepare(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders to read instead of a corpus file; - reads standard input."),
    ] = None,
    src: Annotated[str, typer.Option("--src", help="Corpus file: a path or the name of a preset.")] = "corpus",
    out: options.Out = Path("data/clean"),
    only: Annotated[list[str] | None, typer.Option("--only", help="Prepare only this source; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number of documents per source.")] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Format of clean text: txt (with document lines beside it), jsonl.zst or parquet.",
        ),
    ] = None,
    workers: options.Workers = "auto",
    engine: options.Engine = "auto",
    ray_address: options.RayAddress = None,
    num_shards: Annotated[
        int | None,
        typer.Option(
            "--num-shards",
            min=1,
            help="Split the work among this many jobs (Slurm arrays).",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    shard_index: Annotated[
        int | None,
        typer.Option(
            "--shard-index", min=0, help="Index of this job among them, from 0.", rich_help_panel=options.RARE
        ),
    ] = None,
    force: options.Force = False,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Clean text from files, folders, the hub or built-in tales.

    The hub is that of Hugging Face; a corpus file (`--src`) names its data sets. `-` reads standard input.
    """
    ui.begin(f"cleaning {', '.join(paths or [src])} into {out}", quiet=quiet, as_json=json)
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.corpus.config import CorpusConfig
    from alm.corpus.from_paths import corpus_of_paths
    from alm.corpus.pipeline.job import jobs_of
    from alm.corpus.pipeline.prepare import prepare as run
    from alm.events import Event

    given = paths or []
    changes = [*(set_ or []), *([f"format={form}"] if form else [])]
    chosen: list[Event] = []
    if given:
        config = corpus_of_paths(given, overrides=changes, on_event=chosen.append)
    else:
        config = load(CorpusConfig, [Part(presets.find(src))], overrides=changes)
    words = [*options.set_flags(changes), *(["--limit", str(limit)] if limit else [])]
    redo = shlex.join(["alm", "corpus", "prepare", *(given or ["--src", src]), "--out", str(out), *words])
    share = _share(num_shards, shard_index)
    if dry_run:
        jobs = jobs_of(config, out=out, only=only or [], limit=limit, force=force, redo=redo)
        _show_plan(jobs, json)
        return
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event:
        for event in chosen:
            on_event(event)
        found = run(
            config,
            out=out,
            only=only or [],
            limit=limit,
            force=force,
            redo=redo,
            engine=options.chosen_engine(engine, workers, ray_address),
            share=share,
            on_event=on_event,
        )
    ui.show_result({"sources": [s.model_dump(mode="json") for s in found]}, _summary(found), as_json=json)
    if share is None:
        if not (quiet or json):
            ui.echo_err(f"report: {out / '_report.html'}")
        ui.next_step("alm", "tokenizer", "train", "--input", out, quiet=quiet, as_json=json)


def _share(count: int | None, index: int | None) -> tuple[int, int] | None:
    from alm.errors import ConfigError

    if count is None and index is None:
        return None
    if count is None or index is None or index >= count:
        raise ConfigError(
            "`--num-shards` and `--shard-index` must be used together, and the index must be below the number",
            hint="use `--num-shards 4 --shard-index 0` to 3",
        )
    return index, count


def _show_plan(jobs: Sequence[CorpusJob], as_json: bool) -> None:
    from alm.corpus.pipeline.job import inspect, name_source_in_errors
    from alm.corpus.pipeline.prepare import expected_bytes
    from alm.events import ignore

    plans: dict[str, dict[str, object]] = {}
    for job in jobs:
        with name_source_in_errors(job):
            found = inspect(job, on_event=ignore)
        plan = found.plan
        plans[job.name] = {
            "state": "up to date" if found.current else "to be made",
            "kind": job.source.kind,
            "revision": plan.revision,
            "licence": plan.licence,
            "units": len(plan.units),
            "files": len({part.name for unit in plan.units for part in unit.parts}),
            "bytes": sum(unit.bytes for unit in plan.units),
            "expected_bytes": expected_bytes(job, plan),
        }
    ui.show_result(
        {"sources": plans}, ui.table([(name, _plan_line(plan)) for name, plan in plans.items()]), as_json=as_json
    )


def _plan_line(plan: dict[str, object]) -> str:
    if plan["state"] == "up to date":
        return "up to date"
    size, expected = (ui.size(float(str(plan[key]))) for key in ("bytes", "expected_bytes"))
    revision = f", at {str(plan['revision'])[:12]}" if plan["revision"] else ""
    return f"to be made: {plan['files']:,} files, {size} in {plan['units']:,} units{revision}; about {expected} of text"


def _summary(found: Sequence[SourceMetadata]) -> list[str]:
    """A line for each source, with the most frequent reasons to drop documents, and what is held out."""
    from alm.corpus.held_out import in_words

    rows = [("source", "documents", "kept", "clean text", "held out", "dropped")]
    for source in found:
        documents = source.documents
        share = documents.kept / documents.input if documents.input else 0.0
        most = sorted(documents.dropped.items(), key=lambda item: -item[1])[:3]
        dropped = ", ".join(f"{number:,} {reason}" for reason, number in most)
        more = len(documents.dropped) - len(most)
        rows.append(
            (
                source.source,
                f"{documents.input:,}",
                f"{share:.1%}",
                ui.size(source.bytes.output),
                f"{source.validation_documents:,}",
                dropped + (f" and {more} more reasons" if more > 0 else ""),
            )
        )
    held_out = [(source.source, in_words(source.held_out)) for source in found if source.held_out is not None]
    lines = [f"held out{f' of {name}' if len(held_out) > 1 else ''}: {words}" for name, words in held_out]
    return [*ui.columns(rows), *lines] if found else []
