"""`alm push`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui
from alm.cli.export import Checkpoint, Dtype, NoCompare, To, command, load_config
from alm.cli.help import Commands
from alm.cli.runs import the_checkpoint

app = Commands()


@app.command(
    examples=(
        "alm push --repo my-model",
        "alm push --repo me/tales --checkpoint runs/tales --dtype bf16 --public",
    )
)
def push(
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo",
            metavar="NAME",
            help="Model on the hub, as namespace/name; the namespace is yours by default. Required.",
        ),
    ] = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="Make it public; without this flag, only you and your organization can read it."),
    ] = False,
    to: To = "huggingface",
    checkpoint: Checkpoint = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the export.  [default: one in exports/]")] = None,
    dtype: Dtype = None,
    no_compare: NoCompare = False,
    set_: options.Set = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Export a model and upload it to the Hugging Face Hub.

    Only you and your organization can read it, unless --public is given.
    """
    from alm.errors import ConfigError
    from alm.export import run
    from alm.export.push import push as stage
    from alm.export.source import load_source

    if repo is None:
        raise ConfigError("`alm push` needs `--repo`", hint="name the model on the hub: `alm push --repo me/my-model`")
    config = load_config(to, dtype, set_ or [])
    path = the_checkpoint(checkpoint, silent=quiet or json)
    words = ["push", "--repo", repo, *(["--public"] if public else [])]
    redo = command(*words, checkpoint=path, to=to, out=out, dtype=dtype, overrides=set_ or [])
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        if dry_run:
            run.check(config, load_source(path, on_event=on_event), out or Path("exports"))
            who = "everyone" if public else "you and your organization only"
            values = {"checkpoint": str(path), "to": to, "repo": repo, "public": public}
            ui.show_result(values, [f"{path} can be uploaded to `{repo}`, for {who}"], as_json=json)
            return
        made = stage(
            config,
            checkpoint=path,
            repo=repo,
            out=out,
            is_public=public,
            force=force,
            compare=not no_compare,
            redo=redo,
            on_event=on_event,
        )
    sent = made.uploaded
    line = f"{sent.url}: {'private' if sent.is_private else 'public'}, commit {sent.sha[:12]}"
    ui.show_result({"out": str(made.out), **asdict(sent)}, [line], as_json=json)
