"""Kind `tensorboard`: event files in the run's folder, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from alm.config.base import Config as BaseConfig
from alm.training.monitoring.sinks._sink import Opening, named

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PACKAGE, INSTALL = "tensorboard", "a-lm[tensorboard]"
_FOLDER = "tensorboard"


class Config(BaseConfig):
    """Writes to the folder `tensorboard` of the run: `tensorboard --logdir runs` shows all runs."""

    kind: Literal["tensorboard"] = "tensorboard"


def opened(config: Config, opening: Opening) -> TensorBoard:
    """Open the sink. Rows that a killed run wrote after the resumed step are hidden; a run without any is written
    again.
    """
    from torch.utils.tensorboard import SummaryWriter

    folder = opening.run / _FOLDER
    is_new = not any(folder.glob("*tfevents*"))
    writer = SummaryWriter(str(folder), purge_step=None if is_new else opening.step + 1)
    sink = TensorBoard(writer, where=f"`tensorboard --logdir {folder}`")
    for row in opening.rows if is_new else ():
        sink.scalars(row["step"], named(row))
    return sink


class TensorBoard:
    """Writes every row to the disk at once: rows that are not there when the process is killed would be lost."""

    def __init__(self, writer: SummaryWriter, *, where: str) -> None:
        self._writer = writer
        self.where = where

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        for number, (prompt, text) in enumerate(texts):
            self._writer.add_text(f"samples/{number}", _as_it_is(prompt + text), step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _as_it_is(text: str) -> str:
    """Indent the lines: TensorBoard reads Markdown, which shows indented lines verbatim."""
    return "".join(f"    {line}\n" for line in text.split("\n"))
