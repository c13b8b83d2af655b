"""`alm data`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm import shown
from alm.cli import options, ui
from alm.cli.help import Commands
from alm.cli.runs import the_run

if TYPE_CHECKING:
    from alm.data.show import Row

app = Commands(help="Show what a run trains on.", no_args_is_help=True)


@app.command(examples=("alm data show", "alm data show --run runs/first --step 1234"))
def show(
    step: Annotated[int, typer.Option("--step", help="Number of the step, as in metrics.jsonl and on the screen.")] = 1,
    run: Annotated[Path | None, typer.Option("--run", help="The run's folder.  [default: the newest run]")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Packed data.  [default: the run's own]")] = None,
    characters: Annotated[
        int, typer.Option("--characters", min=1, help="Maximum characters to show of a document.")
    ] = 300,
    json: options.Json = False,
) -> None:
    """Print the documents of one step of a run.

    The step may lie in the future. Useful to examine a loss spike.
    """
    import os

    from alm.config.load import Part, load
    from alm.data.show import batch
    from alm.errors import ConfigError
    from alm.packing.shards import TRAIN, open_packed
    from alm.tokenizers.file import Tokenizer
    from alm.training.batches import plan_batches
    from alm.training.config import RunConfig
    from alm.training.run import run_folder as runs

    run = the_run(run, silent=json)
    if not runs.exists(run):
        raise ConfigError(f"`{run}` does not contain a run", hint="name the folder of a run with `--run`")
    config = load(RunConfig, [Part(run / runs.CONFIG_NAME)])
    if not 1 <= step <= config.training.max_steps:
        raise ConfigError(f"the run has no step {step}: its steps are 1 to {config.training.max_steps:,}")
    folder = data or Path(os.path.normpath(run / runs.read_metadata(run).data))
    packed = open_packed(folder, is_hashed=True)
    stream = packed.split(TRAIN)
    rows = batch(stream, Tokenizer.load(packed.tokenizer_path), plan_batches(config, stream), step=step - 1)
    values = {"step": step, "data": str(folder), "rows": [_values(row) for row in rows]}
    ui.show_result(values, [line for row in rows for line in _lines(row, characters)], as_json=json)


def _values(row: Row) -> dict[str, object]:
    return {"row": row.number, "source": row.source, "documents": [vars(passage) for passage in row.passages]}


def _lines(row: Row, characters: int) -> list[str]:
    count = len(row.passages)
    lines = [f"sequence {row.number:,}  {shown.line(row.source)}, {count} {'document' if count == 1 else 'documents'}"]
    for passage in row.passages:
        text = passage.text if len(passage.text) <= characters else passage.text[:characters] + " ..."
        lines.append(f"  {'' if passage.begins else '... '}{shown.line(text)}  [{passage.tokens:,} tokens]")
    return lines
