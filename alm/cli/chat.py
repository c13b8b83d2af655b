"""`alm chat`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui
from alm.cli.fields import Fields, FieldsCommand, Values, with_fields
from alm.cli.help import Commands

if TYPE_CHECKING:
    from alm.events import Listener
    from alm.generation.chat import Conversation
    from alm.generation.load import LoadedModel
    from alm.tokenizers.chat_format import ChatFormat

app = Commands()


@app.command(
    cls=FieldsCommand,
    examples=(
        "alm chat",
        'alm chat runs/SmolLM2-135M-Instruct --system "You answer in one sentence."',
    ),
)
@with_fields
def chat(
    *,
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="A run, an imported model, or a checkpoint of one.  [default: the newest run]"
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="Text of the system, which comes first.")] = None,
    once: Annotated[
        str | None, typer.Option("--once", metavar="TEXT", help="Send one message, print the answer and leave.")
    ] = None,
    load: Annotated[Path | None, typer.Option("--load", help="Saved conversation to continue.")] = None,
    no_save: Annotated[bool, typer.Option("--no-save", help="Keep no file of the conversation.")] = False,
    sampling: Annotated[
        Values,
        Fields(
            "alm.generation.config.ChatConfig",
            *("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty"),
            *("frequency_penalty", "bad_words", "stop", "seed"),
            flags={"max_tokens": "--max-new-tokens"},
            rare={"min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "bad_words"},
        ),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORM",
            help="Turns, for a model that does not name its own: chatml, llama3, llama2, mistral, zephyr or plain.",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            min=8,
            help="Most tokens that the model sees at once.  [default: the model's context]",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    device: options.Device = "auto",
    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object for each message on stdout.", rich_help_panel=options.RARE),
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Talk with a model.

    Answers come as they are written; /help lists what can be typed. A conversation is saved as it grows. Text from a
    pipe is one message.
    """
    from alm.cli.chat_pipe import given
    from alm.config.load import load as load_config
    from alm.generation.config import ChatConfig

    config = load_config(ChatConfig, [], base=sampling)
    in_terminal = once is None and not json and sys.stdin.isatty()
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        messages = iter(()) if in_terminal else given(once, as_json=json)
        path, loaded, turns = _model(model, form, device, silent=quiet or json, on_event=on_event)
        from alm.cli.chat_loop import ChatLoop, Saving
        from alm.cli.chat_pipe import answer_all
        from alm.generation.chat import ChatModel, Conversation

        chat_model = ChatModel(loaded, turns, context=context, on_event=on_event)
        talk = Conversation(chat_model, config, system=system, on_event=on_event)
        if load is not None:
            from alm.generation import chat_files

            talk.replace(chat_files.load(load))
            talk.set_system(talk.system if system is None else system)
        saving = Saving(_name(path), is_on=not no_save)
        if in_terminal:
            if not quiet:
                _greet(path, talk, is_saved=not no_save)
            ChatLoop(talk, saving, quiet=quiet, verbose=verbose).run()
            if saving.path is not None:
                ui.next_step("alm", "chat", path.parent, "--load", saving.path, quiet=quiet, as_json=False)
            return
        answer_all(talk, messages, saving, as_json=json)


def _model(
    given: Path | None, form: str | None, device: str, *, silent: bool, on_event: Listener
) -> tuple[Path, LoadedModel, ChatFormat]:
    """Load the model, and find its turn format. InputError without one."""
    from alm.cli.runs import the_checkpoint
    from alm.errors import ConfigError, InputError, quoted, shell

    if given is not None and not given.exists():
        raise InputError(f"there is no model `{given}`", hint=_absent(given))
    if given is not None and given.suffix == ".gguf":
        raise InputError(f"`{given}` is a GGUF file", hint=f"run `{shell('alm', 'import', '--from', 'gguf', given)}`")
    path = the_checkpoint(given, silent=silent)
    from alm.generation.chat_formats import NAMES, named
    from alm.generation.load import load_model
    from alm.tokenizers.chat_format import beside

    loaded = load_model(path, device_name=device, on_event=on_event)
    if form is not None:
        return path, loaded, named(form, loaded.tokenizer)
    name = quoted(path.parent)
    try:
        turns = beside(path.with_name("tokenizer.json"), loaded.tokenizer)
    except ConfigError as error:
        again = f"`alm chat {name} --format chatml`, or another of {', '.join(NAMES[1:])}"
        raise InputError(error.message, hint=f"if you know its turns, name them: {again}") from error
    if turns is None:
        raise InputError(
            f"`{path.parent}` continues texts; it was not trained on conversations",
            hint=f"to continue a text: `alm sample --checkpoint {name}`; to teach it: `alm finetune --model {name} "
            f"--data chats.jsonl`; to try it with turns of plain text: `alm chat {name} --format plain`",
        )
    return path, loaded, turns


def _absent(given: Path) -> str:
    from alm.errors import quoted

    if len(given.parts) == 2 and not given.parent.exists():
        return f"a model of the hub is imported first: `alm import {quoted(given)}`"
    return "run `alm runs` to see what is there; to send one message, use `--once TEXT`"


def _name(path: Path) -> str:
    return path.resolve().parent.name


def _greet(path: Path, talk: Conversation, *, is_saved: bool) -> None:
    from alm import shown
    from alm.generation.chat_files import folder_of_user

    model = talk.model
    ui.echo_err(f"{shown.line(str(path.parent))}: turns of {model.format.form}, a context of {model.context:,} tokens")
    if is_saved:
        ui.echo_err(f"saved in {shown.line(str(folder_of_user()))} (`--no-save` keeps nothing)")
    ui.echo_err("/help lists what can be typed; Ctrl-D leaves")
