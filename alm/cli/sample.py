"""`alm sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui
from alm.cli.fields import Fields, FieldsCommand, Values, with_fields
from alm.cli.help import Commands
from alm.cli.runs import the_checkpoint

app = Commands()


@app.command(
    cls=FieldsCommand,
    examples=(
        'alm sample "Once upon a time"',
        "alm sample --checkpoint runs/first --max-tokens 100 --temperature 0.7",
    ),
)
@with_fields
def sample(
    *,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="Text to continue; without it, a new document begins.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Checkpoint or run to sample from.  [default: the newest run]"),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="Tokenizer file.  [default: the one beside the checkpoint]")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="The same as PROMPT; `-` reads stdin."),
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option("--prompt-file", help="File with the text to continue.")] = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Continue each line of the input until it ends.")
    ] = False,
    num_samples: Annotated[
        int,
        typer.Option(
            "--num-samples",
            min=1,
            help="Number of texts, with seeds that count up from `--seed`; several are written as records.",
        ),
    ] = 1,
    sampling: Annotated[
        Values,
        Fields(
            "alm.generation.config.SamplingConfig",
            *("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty"),
            *("frequency_penalty", "bad_words", "stop", "overflow", "seed"),
            rare={"min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "bad_words", "overflow"},
        ),
    ],
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Show the probability of each token in colour, and its alternatives.")
    ] = False,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Generate text with a trained model.

    The text is printed as it comes.
    """
    from alm.config.load import load
    from alm.generation.config import SamplingConfig

    config = load(SamplingConfig, [], base=sampling)
    if words:
        _check_words(words, prompt)
        prompt = " ".join(words)  # also without quotes
    given = {"--inspect": inspect, "--json": json, "--prompt": prompt, "--prompt-file": prompt_file}
    _check_modes(interactive, {**given, "--num-samples": num_samples > 1})
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        path = the_checkpoint(checkpoint, silent=quiet or json)
        from alm.cli.repl import converse  # PyTorch takes seconds
        from alm.cli.sample_output import ALTERNATIVES, Texts
        from alm.generation.load import load_model

        text = "" if interactive else _prompt(prompt, prompt_file)
        loaded = load_model(path, tokenizer=tokenizer, device_name=device, on_event=on_event)
        if interactive:
            converse(loaded, config, quiet=quiet, on_event=on_event)
            return
        texts = Texts(text, config, num_samples, silent=json or inspect)
        alternatives = ALTERNATIVES if inspect or json else None
        texts.take(loaded.write([text] * num_samples, config, alternatives=alternatives, on_event=on_event))
    if inspect:
        texts.show_probabilities(loaded.tokenizer)
    if json:
        ui.show_result({"checkpoint": str(path), **texts.values(loaded.tokenizer)}, [], as_json=True)
    elif not quiet:
        ui.echo_err(texts.summary())


def _check_words(words: list[str], prompt: str | None) -> None:
    """Raise `ConfigError` for a PROMPT beside `--prompt`, or one that is a path."""
    import os

    from alm.errors import ConfigError, quoted

    if prompt is not None:
        raise ConfigError("a prompt is given twice, as PROMPT and as `--prompt`", hint="leave out one of the two")
    path = Path(words[0])
    if len(words) == 1 and os.path.lexists(path):
        is_model = path.is_dir() or path.suffix == ".pt"
        flag = f"`--checkpoint {quoted(path)}`" if is_model else f"`--prompt-file {quoted(path)}`"
        raise ConfigError(
            f"{quoted(path)} is a file or folder, where a prompt is expected",
            hint=f"to read it, use {flag}; to continue these very words, `--prompt {quoted(path)}`",
        )


def _check_modes(interactive: bool, given: dict[str, object]) -> None:
    """Raise `ConfigError` for flags that cannot be combined."""
    from alm.errors import ConfigError

    clash = next((flag for flag, value in given.items() if value), None)
    if interactive and clash:
        raise ConfigError(f"`--interactive` and `{clash}` cannot be combined", hint="leave out one of the two")
    if given["--prompt"] is not None and given["--prompt-file"]:
        raise ConfigError("`--prompt` and `--prompt-file` cannot be combined", hint="leave out one of the two")
    if given["--inspect"] and given["--json"]:
        raise ConfigError(
            "`--inspect` and `--json` cannot be combined",
            hint="leave out `--inspect`: the JSON has probabilities and alternatives too",
        )


def _prompt(given: str | None, file: Path | None) -> str:
    """The text to continue, from a flag, a file or stdin; the final newline of a file or stdin is removed."""
    from alm.corpus.normalize import with_newlines
    from alm.corpus.read import read_text
    from alm.errors import InputError

    if file is None and given != "-":
        return given or ""
    name = "stdin" if file is None else str(file)
    try:
        text = read_text(file) if file else with_newlines(sys.stdin.buffer.read().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read stdin: {error.strerror}", hint="name a file with `--prompt-file`") from error
    except UnicodeDecodeError as error:
        raise InputError(f"`{name}` is not UTF-8 at byte {error.start}", hint="save the text as UTF-8") from error
    return text.removesuffix("\n")
