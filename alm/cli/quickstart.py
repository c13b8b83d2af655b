"""`alm quickstart`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alm.cli import options, ui
from alm.cli.event_lines import result_score
from alm.cli.fields import Fields, FieldsCommand, Values, with_fields
from alm.cli.help import Commands
from alm.cli.pretrain import same_run
from alm.events import Noted

if TYPE_CHECKING:
    from alm.quickstart.chat import FinishedChat, PreparedChat
    from alm.quickstart.own_text import OwnText
    from alm.quickstart.run import Finished, Job, Places, Prepared

app = Commands()
_LONGER = 6  # times the budget, for the next run


@app.command(
    cls=FieldsCommand,
    examples=("alm quickstart my-texts/ --budget 30m", "alm quickstart --chat"),
)
@with_fields
def quickstart(
    *,
    context: typer.Context,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Files and folders with your own text; without any, built-in tales.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the result.  [default: alm-quickstart, or alm- and the name of the text]",
        ),
    ] = None,
    training: Annotated[
        Values,
        Fields(
            "alm.training.config.TrainingConfig", "max_steps", "seed", flags={"max_steps": "--steps"}, is_optional=True
        ),
    ],
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="DURATION",
            help="Choose the model and the steps so that all of it takes this long: 2m, 10m, 1h.  [default: 10m for "
            "your own text]",
        ),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Make a model that writes tales on request and answers questions about them.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start another one beside --out, which is left unchanged.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With your own text: override a key of it or of the run."),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Make a model of your text, or of built-in tales.

    It runs the complete pipeline, offline, and chooses everything for the text and the machine. Interrupted? The same
    command continues where it stopped; after --fresh, name the folder with --out.
    """
    started = time.monotonic()  # before the imports, which take seconds
    given: dict[str, Any]  # Any: as all kinds of quickstart take them
    seconds = options.seconds(budget, flag="--budget")
    if chat:
        _refuse_with_chat({"your own text": texts, "`--set`": set_, "`--budget`": budget})
        given = {"steps": training.get("max_steps"), "seed": training.get("seed"), "is_fresh": fresh}
        _chat(context, out, {**given, "device_name": device}, started, json, quiet, verbose, dry_run)
        return
    from alm.quickstart import own_text
    from alm.quickstart import run as stage

    given = {
        "steps": training.get("max_steps"),
        "seed": training.get("seed"),
        "budget": seconds,
        "is_fresh": fresh,
        "device_name": device,
        "started": started,
    }
    job: Job
    own: OwnText | None = None
    ui.begin(ui.MEASURING, quiet=quiet, as_json=json)
    if texts:
        job = own = own_text.prepared(texts, out, changes=set_ or [], **given)
        values, lines = partial(_own_values, own), [*_own_lines(own)]
    else:
        _refuse_changes(set_)
        job = tales = stage.prepared(out or Path("alm-quickstart"), **given)
        values, lines = partial(_plan_values, tales), [*_plan_lines(tales)]
    _continue_in(job.places.out, context, out, is_fresh=fresh)
    if dry_run:
        ui.show_result(values(), [*lines, "", *job.commands()], as_json=json)
        return
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event:
        for line in lines:
            on_event(Noted(line))
        finished = stage.quickstart(job, on_event=on_event)
    _show(job, finished, time.monotonic() - started, as_json=json)
    if not (quiet or json):
        for line in _next(job.places) if own is None else _next_with_own(own, texts or []):
            ui.echo_err(line)


def _continue_in(chosen: Path, context: typer.Context, out: Path | None, *, is_fresh: bool) -> None:
    """Make the words to paste after Ctrl-C continue in the folder that was chosen."""
    if is_fresh and context.obj:
        folder = [] if out == chosen else ["--out", str(chosen)]
        context.obj[:] = [word for word in context.obj if word != "--fresh"] + folder


def _chat(
    context: typer.Context,
    out: Path | None,
    given: dict[str, Any],  # Any: as `prepared` takes them
    started: float,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    is_dry: bool,
) -> None:
    """Run a quickstart that ends in a chat, and show its result."""
    ui.begin(ui.MEASURING, quiet=quiet, as_json=as_json)
    from alm.quickstart import chat as stage

    job = stage.prepared(out or Path("alm-quickstart-chat"), **given)
    lines = [*_plan_lines(job)]
    _continue_in(job.places.out, context, out, is_fresh=given["is_fresh"])
    if is_dry:
        ui.show_result(_plan_values(job), [*lines, "", *job.commands()], as_json=as_json)
        return
    with ui.listening(quiet=quiet, as_json=as_json, verbose=verbose) as on_event:
        for line in lines:
            on_event(Noted(line))
        finished = stage.quickstart_chat(job, on_event=on_event)
    _show_chat(job, finished, time.monotonic() - started, as_json=as_json)
    ui.next_step("alm", "chat", job.places.run, quiet=quiet, as_json=as_json)


def _show_chat(job: PreparedChat, finished: FinishedChat, seconds: float, *, as_json: bool) -> None:
    score, result = finished.score, finished.run.result
    assert result is not None
    values = {
        "out": str(job.places.out),
        "run": str(job.places.run),
        "seconds": round(seconds, 1),
        "parameters": finished.run.parameters,
        "messages": [{"role": each.role, "content": each.content} for each in finished.talk],
        "right": score.right,
        "judged": score.count,
        "right_by_kind": {kind: list(found) for kind, found in score.by_kind.items()},
        "faults": score.faults,
        "report": str(finished.report),
    }
    talk = [line for each in finished.talk for line in ("", f"{each.role}: {each.content.strip()}")]
    kinds = ", ".join(f"{kind} {right} of {count}" for kind, (right, count) in score.by_kind.items())
    lines = [
        *talk,
        "",
        f"Done in {ui.duration(seconds)}: {finished.run.parameters:,} parameters.",
        f"{score.right} of {score.count} answers to new requests are right ({score.right / score.count:.0%}): {kinds}",
        f"Report: {finished.report}",
    ]
    ui.show_result(values, lines, as_json=as_json)


def _refuse_with_chat(given: dict[str, object]) -> None:
    """Raise `ConfigError` for what a quickstart with chat does not take."""
    from alm.errors import ConfigError

    for name, value in given.items():
        if value:
            raise ConfigError(
                f"`alm quickstart --chat` does not take {name}: its model, text and steps were chosen together",
                hint="leave it out; to teach a model your own conversations, run `alm finetune --data my-chats/`",
            )


def _refuse_changes(changes: list[str] | None) -> None:
    """Raise `ConfigError` for overrides of the quickstart with tales, whose presets were measured as they are."""
    from alm.errors import ConfigError

    if changes:
        raise ConfigError(
            "`--set` is for a quickstart with your own text", hint="name the text: `alm quickstart my-texts/`"
        )


def _plan_lines(job: Prepared) -> Iterator[str]:
    """A few lines on the plan; none if a run is resumed."""
    plan = job.plan
    if plan is None:
        return
    text, memory = plan.text, plan.memory
    about = "" if job.recipe.budget is None else "about "
    yield (
        f"Plan: {job.recipe.tales:,} {job.texts}; a model of {plan.model.parameters:,} parameters; "
        f"{about}{text.steps:,} steps of {text.tokens_per_step:,} tokens, which sees the text "
        f"{max(text.epochs.values()):.2g} times"
    )
    free = "" if memory.available_bytes is None else f" of {ui.size(memory.available_bytes)} that are free"
    disk = ui.size(plan.disk.checkpoints * plan.disk.checkpoint_bytes)
    yield f"Plan: {ui.size(memory.memory_bytes)} of memory{free}, and {disk} of disk for checkpoints"
    if job.seconds is not None:
        rate = plan.time.tokens_per_second
        speed = "" if rate is None else f", at {rate:,.0f} tokens a second, measured"
        yield f"Plan: done in about {ui.duration(job.seconds)}{speed}"


def _plan_values(job: Prepared) -> dict[str, object]:
    plan = None if job.plan is None else {key: value for key, value in job.plan.values().items() if key != "assumed"}
    return {
        "out": str(job.places.out),
        "seconds": job.seconds,
        job.texts: job.recipe.tales,
        "plan": plan,
        "commands": list(job.commands()),
    }


def _own_lines(job: OwnText) -> Iterator[str]:
    """A few lines on what was chosen, how long it takes and what to expect; none if a run is resumed."""
    from alm.model.count import count

    found = job.expected
    if found is None or job.text_bytes is None:
        return
    size = ui.count_of(count(found.config.model).total)
    yield (
        f"Plan: about {ui.size(job.text_bytes)} of text; a vocabulary of {job.recipe.vocab_size:,}; a model of {size} "
        f"parameters, which sees the text about {found.passes:.2g} times"
    )
    yield f"Plan: done in about {ui.duration(job.seconds)}" + (
        "; more passes over this text teach little" if job.seconds < job.recipe.budget else ""
    )
    yield f"Expect: {job.expectation}"


def _own_values(job: OwnText) -> dict[str, object]:
    found = job.expected
    return {
        "out": str(job.places.out),
        "seconds": None if found is None else job.seconds,
        "text_bytes": job.text_bytes,
        "expectation": job.expectation,
        "model": None if found is None else found.preset,
        "overrides": None if found is None else list(found.overrides),
        "commands": list(job.commands()),
    }


def _show(job: Job, finished: Finished, seconds: float, *, as_json: bool) -> None:
    result = finished.run.result
    assert result is not None
    values = {
        "out": str(job.places.out),
        "seconds": round(seconds, 1),
        "parameters": finished.run.parameters,
        "steps": result.step,
        "bits_per_byte": (result.best or result).bits_per_byte,
        "bits_per_byte_margin": (result.best or result).bits_per_byte_margin,
        "samples": [{"prompt": p, "text": t} for p, t in zip(finished.prompts, finished.texts, strict=True)],
        "held_out": finished.held_out,
        "report": str(finished.report),
    }
    score = f", {result_score(result, of=' on held-out text')}" if result.bits_per_byte is not None else ""
    done = f"Done in {ui.duration(seconds)}: {finished.run.parameters:,} parameters, {result.step} steps{score}."
    texts = [line for text in finished.texts for line in ("", *text.strip().split("\n"))]
    held_out = [f"The score is of {finished.held_out}"] if score else []
    ui.show_result(values, [*texts, "", done, *held_out, f"Report: {finished.report}"], as_json=as_json)


def _next(places: Places) -> list[str]:
    from alm.quickstart.run import TEMPERATURE

    sample = f"alm sample --checkpoint {places.checkpoint} --max-tokens 200 --temperature {TEMPERATURE}"
    return [
        "",
        "Try next:",
        f'  {sample} --prompt "Once there was a young fox"',
        f"  alm info {places.run}",
        "  alm quickstart my-texts/       with your own text",
    ]


def _next_with_own(job: OwnText, texts: list[str]) -> list[str]:
    from alm.errors import shell
    from alm.training.run.run_folder import free_name

    run, recipe = job.places.run, job.recipe
    again = [*texts, *options.set_flags([*recipe.by_user]), "--budget", options.duration(_LONGER * recipe.budget)]
    longer = [] if job.is_capped else [shell("alm", "quickstart", *again, "--out", free_name(job.places.out))]
    return [
        "",
        "Try next:",
        f"  {shell('alm', 'sample', '--checkpoint', run)} --interactive",
        f"  {shell('alm', 'export', '--checkpoint', run, '--to', 'gguf')}",
        *(f"  {command}" for command in longer),
        same_run(run, job.places.packed),
    ]
