"""`alm device`."""

from __future__ import annotations

from typing import Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands

app = Commands()


@app.command(examples=("alm device", "alm device --device cpu"))
def device(
    wanted: Annotated[str, typer.Option("--device", help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
    json: options.Json = False,
) -> None:
    """List devices, and the device and precision of `auto`."""
    import torch

    from alm import device as devices

    choice = devices.choose(wanted)
    reports = devices.reports()
    values = {
        "torch": torch.__version__,
        "devices": [vars(report) for report in reports],
        "device": str(choice.device),
        "device_reason": choice.device_reason,
        "precision": choice.precision,
        "precision_reason": choice.precision_reason,
    }
    rows = [
        (report.name, f"{'yes' if report.available else 'no '}  {report.detail}{_memory(report.memory_bytes)}")
        for report in reports
    ]
    lines = [
        f"PyTorch {torch.__version__}",
        *(f"  {line}" for line in ui.table(rows)),
        f"device     {choice.device}: {choice.device_reason}",
        f"precision  {choice.precision}: {choice.precision_reason}",
    ]
    ui.show_result(values, lines, as_json=json)
    words = [] if wanted == "auto" else ["--device", wanted]
    ui.next_step("alm", "doctor", *words, quiet=False, as_json=json)


def _memory(size: int | None) -> str:
    return f", {ui.size(size)}" if size else ""
