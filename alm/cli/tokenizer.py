"""`alm tokenizer train`, `encode` and `decode`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui
from alm.cli.fields import Fields, FieldsCommand, Values, with_fields
from alm.cli.help import Commands

app = Commands(help="Train and use tokenizers.", no_args_is_help=True)

TokenizerPath = Annotated[Path, typer.Option("--tokenizer", help="Tokenizer file.")]


@app.command(
    cls=FieldsCommand, examples=("alm tokenizer train", "alm tokenizer train --input data/clean --vocab-size 8000")
)
@with_fields
def train(
    *,
    input_: Annotated[
        list[str] | None, typer.Option("--input", help="Text to learn from: files, folders, globs.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="MORE", help="Further inputs, as from a shell glob.")
    ] = None,
    values: Annotated[
        Values, Fields("alm.tokenizers.config.TokenizerConfig", "vocab_size", "model", flags={"model": "--kind"})
    ],
    out: options.Out = Path("artifacts/tokenizer.json"),
    workers: options.Workers = "auto",
    force: options.Force = False,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Learn a vocabulary from text.

    The file has the format of the `tokenizers` library.
    """
    ui.begin(f"learning a vocabulary for {out}", quiet=quiet, as_json=json)
    from alm.config.load import load
    from alm.corpus.read import find
    from alm.tokenizers.config import TokenizerConfig
    from alm.tokenizers.train import train_tokenizer

    inputs = [*(input_ or []), *(more or [])] or ["data/clean"]
    threads = options.worker_count(workers)
    base = values | {"model": {"kind": values["model"]}}
    config = load(TokenizerConfig, [], base=base, overrides=set_ or [])
    if dry_run:
        files = [(str(file.path), ui.size(file.path.stat().st_size)) for file in find(inputs)]
        ui.show_result({"inputs": dict(files), "out": str(out)}, ui.table(files), as_json=json)
        return
    named = [
        "--vocab-size",
        str(values["vocab_size"]),
        "--kind",
        values["model"],
        *options.set_flags(set_ or []),
        "--out",
        str(out),
    ]
    redo = shlex.join(["alm", "tokenizer", "train", *named, "--input", *inputs])
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event:
        made = train_tokenizer(
            config, inputs=inputs, out=out, workers=threads, force=force, redo=redo, on_event=on_event
        )
    line = f"{out}: {made.vocab_size:,} tokens from {made.documents:,} documents, {ui.size(made.bytes)}"
    ui.show_result(made.model_dump(mode="json", exclude={"bytes_per_id"}), [line], as_json=json)
    ui.next_step("alm", "pack", "--tokenizer", out, "--in", *_short(inputs), quiet=quiet, as_json=json)


def _short(inputs: list[str]) -> list[str]:
    """The inputs, or their folder if there are several and all are in the same one."""
    folders = {str(Path(given).parent) for given in inputs}
    return [*folders] if len(inputs) > 1 and len(folders) == 1 else inputs


@app.command(examples=('alm tokenizer encode "Once upon a time" --show', "alm tokenizer encode --json < story.txt"))
def encode(
    text: Annotated[str | None, typer.Argument(help="Text to encode; `-` or no text reads stdin.")] = None,
    tokenizer: TokenizerPath = Path("artifacts/tokenizer.json"),
    show: Annotated[bool, typer.Option("--show", help="Print the pieces of the text, coloured on a terminal.")] = False,
    json: options.Json = False,
) -> None:
    """Print the token ids of a text, with --json also their texts."""
    from alm.tokenizers.file import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    given = _stdin() if text in (None, "-") else text or ""
    ids = loaded.encode(given)
    if show and not json:
        from alm.cli.token_view import show_pieces

        show_pieces([loaded.token_bytes(id_) for id_ in ids])
        size = len(given.encode("utf-8", "surrogatepass"))
        ui.echo_err(f"{len(ids):,} tokens, {size:,} bytes, {size / max(1, len(ids)):.2f} bytes per token")
        return
    pieces = [loaded.token_bytes(id_).decode("utf-8", "replace") for id_ in ids] if json else []
    ui.show_result({"ids": ids, "pieces": pieces}, [" ".join(map(str, ids))], as_json=json)


def _stdin() -> str:
    from alm.errors import InputError

    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input is not UTF-8: byte 0x{data[error.start]:02X} at offset {error.start:,}",
            hint="convert it on the way: `iconv -f WINDOWS-1252 -t UTF-8 | alm tokenizer encode`",
        ) from error


@app.command(examples=("alm tokenizer decode 72 101 108", "alm tokenizer decode < ids.txt"))
def decode(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids to decode; `-` or no ids read stdin.")] = None,
    tokenizer: TokenizerPath = Path("artifacts/tokenizer.json"),
    json: options.Json = False,
) -> None:
    """Print the exact text of token ids, with no newline added."""
    from alm.errors import InputError
    from alm.tokenizers.file import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    words = ids if ids and ids != ["-"] else [sys.stdin.read()]
    given = " ".join(words).replace(",", " ").split()
    for word in given:
        if not word.isdecimal():
            raise InputError(
                f"`{word}` is not a token id", hint="give ids as numbers: `alm tokenizer decode 72 101 108`"
            )
    text = loaded.decode([int(word) for word in given])
    if json:
        ui.show_result({"text": text}, [], as_json=True)
    else:
        ui.write_exact(text)


@app.command(
    examples=(
        "alm tokenizer compare artifacts/tokenizer.json other/tokenizer.json",
        "alm tokenizer compare artifacts/tokenizer.json --text data/clean --model pico",
    )
)
def compare(
    tokenizers: Annotated[list[Path] | None, typer.Argument(help="Tokenizer files, or folders of runs.")] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Text to compare on: files, folders, globs; repeatable.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Model to recommend a vocabulary size for: a run, file or preset.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare tokenizers by bytes per token, use and speed."""
    from alm.cli.tokenizer_compare import run

    run(tokenizers or [Path("artifacts/tokenizer.json")], text or [], model, as_json=json, quiet=quiet)


@app.command(
    examples=(
        "alm tokenizer export --to tiktoken",
        "alm tokenizer export --to tiktoken --out exports/tokenizer.tiktoken",
    )
)
def export(
    to: Annotated[str, typer.Option("--to", help="Format to write: tiktoken.")] = "tiktoken",
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the result; its name is also used for the files.")
    ] = Path("artifacts/tokenizer"),
    tokenizer: TokenizerPath = Path("artifacts/tokenizer.json"),
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write a tokenizer in the format of another tool."""
    from alm.errors import ConfigError
    from alm.tokenizers import tiktoken
    from alm.tokenizers.file import Tokenizer

    if to != "tiktoken":
        hint = "use `--to tiktoken`; other tools read tokenizer.json as it is"
        raise ConfigError(f"unknown tokenizer format `{to}` (there is: tiktoken)", hint=hint)
    loaded = Tokenizer.load(tokenizer)
    written = tiktoken.export(loaded, out, force=force)
    checked = tiktoken.checked(loaded)
    if not json:
        found = "tiktoken is installed and gives the same ids" if checked else "tiktoken is not installed: not compared"
        ui.echo_err(found)
    ui.show_result(
        {"files": [str(path) for path in written], "checked": checked}, list(map(str, written)), as_json=json
    )
