"""`alm pack`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from alm.cli import options, ui
from alm.cli.fields import Fields, FieldsCommand, Values, with_fields
from alm.cli.help import Commands

app = Commands()


@app.command(
    cls=FieldsCommand,
    examples=("alm pack", "alm pack --tokenizer artifacts/tokenizer.json --in data/clean --out data/packed"),
)
@with_fields
def pack(
    *,
    in_: Annotated[list[str] | None, typer.Option("--in", help="Clean text: a folder, files, globs.")] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="MORE", help="Further inputs, as from a shell glob.")
    ] = None,
    tokenizer: Annotated[Path, typer.Option("--tokenizer", help="Tokenizer file.")] = Path("artifacts/tokenizer.json"),
    out: options.Out = Path("data/packed"),
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="Token files of nanoGPT, llm.c (.bin) or Megatron (.bin, .idx), instead of --in.",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    replay: Annotated[
        list[str] | None,
        typer.Option(
            "--replay",
            help="Clean text to learn beside the conversations, so that the model keeps what it knows.",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    packing: Annotated[
        Values,
        Fields(
            "alm.packing.config.PackConfig",
            *("seq_len", "sequences_per_shard", "mode", "validation_fraction", "documents", "train_on"),
            *("dtype", "from_dtype"),
            flags={
                "sequences_per_shard": "--shard-size",
                "validation_fraction": "--val-fraction",
                "documents": "--as",
            },
            rare={"sequences_per_shard", "train_on", "dtype", "from_dtype"},
        ),
    ],
    workers: options.Workers = "auto",
    engine: options.Engine = "auto",
    ray_address: options.RayAddress = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Tokenize clean text into shards of token ids."""
    ui.begin(f"packing text into {out}", quiet=quiet, as_json=json)
    from alm.config.load import load
    from alm.errors import ConfigError
    from alm.packing.config import PackConfig

    if from_ and (in_ or more or replay):
        other = "--in" if in_ or more else "--replay"
        raise ConfigError(f"`--from` and `{other}` cannot be combined", hint="pack them into two folders")
    inputs = [] if from_ else [*(in_ or []), *(more or [])] or ["data/clean"]
    config = load(PackConfig, [], base=packing)
    if dry_run:
        _show_plan([*inputs, *(replay or [])], from_ or [], tokenizer, as_json=json)
        return
    from alm.packing.pack import pack as run

    flags = ["--out", out, "--seq-len", config.seq_len, "--shard-size", config.sequences_per_shard]
    flags += ["--dtype", config.dtype, "--mode", config.mode, "--val-fraction", config.validation_fraction]
    flags += ["--as", config.documents] if config.documents != "auto" else []
    flags += ["--train-on", config.train_on] if config.train_on != "assistant" else []
    flags += ["--from-dtype", config.from_dtype] if config.from_dtype else []
    read = [word for path in from_ for word in ("--from", path)] if from_ else ["--in", *inputs]
    read += [word for path in replay or [] for word in ("--replay", path)]
    redo = shlex.join(["alm", "pack", "--tokenizer", str(tokenizer), *map(str, flags), *read])
    chosen = options.chosen_engine(engine, workers, ray_address)
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event:
        made = run(
            config,
            tokenizer=tokenizer,
            clean=inputs,
            replay=replay or [],
            foreign_tokens=from_ or [],
            out=out,
            force=force,
            redo=redo,
            engine=chosen,
            on_event=on_event,
        )
    ui.show_result(made.model_dump(mode="json"), _lines(made, out), as_json=json)
    ui.next_step("alm", "pretrain", "--data", out, quiet=quiet, as_json=json)


def _show_plan(inputs: list[str], foreign_tokens: list[str], tokenizer: Path, *, as_json: bool) -> None:
    from alm.corpus.read import find
    from alm.packing import imported_tokens
    from alm.tokenizers.file import Tokenizer

    vocab_size = Tokenizer.load(tokenizer).vocab_size
    paths = imported_tokens.find(foreign_tokens) if foreign_tokens else [file.path for file in find(inputs)]
    files = [(str(path), ui.size(path.stat().st_size)) for path in paths]
    lines = [f"{tokenizer}: {vocab_size:,} tokens", *ui.table(files)]
    ui.show_result({"inputs": dict(files), "vocab_size": vocab_size}, lines, as_json=as_json)


def _lines(made: Any, out: Path) -> list[str]:  # Any: PackMetadata, whose module is not loaded for --help
    from alm.corpus.held_out import in_words

    stored = made.total_tokens - made.padding_tokens
    padded = f", and {made.padding_tokens:,} of padding" if made.padding_tokens else ""
    return [
        f"{out}: {made.input_tokens:,} tokens = {stored:,} stored + {made.tail_tokens:,} tail{padded} ({made.mode})",
        *(
            f"  {split}: {made.sequences(split):,} sequences of {made.seq_len}, {made.tokens(split):,} tokens"
            for split in ("train", "validation")
        ),
        *_conversations(made),
        *(f"  {row}" for row in ui.columns(_sources(made))),
        *([] if made.held_out is None else [f"  held out: {in_words(made.held_out)}"]),
    ]


def _conversations(made: Any) -> list[str]:
    found = made.conversations
    if found is None:
        return []
    trained = sum(found.answer_tokens.values())
    used = 1 - made.padding_tokens / made.total_tokens
    lost = [f"{found.shortened:,} shortened by {found.dropped_turns:,} messages"] if found.shortened else []
    lost += [f"{number:,} left out: {reason}" for reason, number in found.dropped.items()]
    return [
        f"  {sum(found.conversations.values()):,} conversations in turns of {found.chat['form']}: "
        f"{trained:,} tokens are learned; {used:.2%} of the rows is used",
        *([f"  text beside them: {found.replayed_tokens:,} tokens are learned"] if found.replayed_tokens else []),
        *(f"  {line}" for line in lost),
    ]


def _sources(made: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("source", "split", "documents", "tokens", "bytes/token")]
    for source, splits in made.sources.items():
        for split, count in splits.items():
            if count.tokens:
                per_token = f"{count.bytes / count.tokens:.2f}"
                rows.append((source, split, f"{count.documents:,}", f"{count.tokens:,}", per_token))
    return rows
