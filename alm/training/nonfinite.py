"""Counts and records steps that were skipped because their loss or gradient was not finite; too many end the run."""

from __future__ import annotations

import torch

from alm.data.loader import BatchPlan
from alm.errors import AlmError, quoted
from alm.events import Listener, Noted, Warned
from alm.training.monitoring.metrics import MetricsFile
from alm.training.state import TrainState
from alm.training.step import StepResult


class NonFiniteSteps:
    """Counts skipped steps into `state` and writes a row for each, with the rows of its batch.

    Whether a step was skipped is known on the device. On a CPU it is checked right away, elsewhere only by
    `check`, which waits for the device: call it where the loop waits anyway. Gradients that overflow at a loss scale
    that can still fall are normal in fp16: such steps are recorded, but do not count as skipped in a row.
    """

    def __init__(
        self, state: TrainState, plan: BatchPlan, *, most_in_row: int, metrics: MetricsFile, on_event: Listener
    ) -> None:
        self._state = state
        self._plan = plan
        self._most_in_row = most_in_row
        self._metrics = metrics
        self._on_event = on_event
        self._unchecked: list[tuple[int, torch.Tensor]] = []

    def record(self, step: int, result: StepResult) -> None:
        """Record the result of step number `step`, counted from 1."""
        self._unchecked.append((step, torch.stack([result.is_finite, result.overflowed])))
        if result.is_finite.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Bring the counts up to date. Raises `AlmError` when too many steps in a row were skipped."""
        if not self._unchecked:
            return
        answers = torch.stack([answer for _, answer in self._unchecked]).tolist()
        steps = [step for step, _ in self._unchecked]
        self._unchecked = []
        longest = 0
        for step, (is_finite, overflowed) in zip(steps, answers, strict=True):
            self._count(step, is_finite=is_finite, overflowed=overflowed)
            longest = max(longest, self._state.skipped_in_row)
        if longest >= self._most_in_row:
            raise self._too_many(longest)

    def _count(self, step: int, *, is_finite: bool, overflowed: bool) -> None:
        if is_finite:
            self._state.skipped_in_row = 0
            return
        self._state.skipped_steps += 1
        rows = [int(row) for row in self._plan.rows(step - 1)]
        self._metrics.write({"step": step, "skipped_rows": rows, **({"overflowed": True} if overflowed else {})})
        if overflowed:
            self._on_event(Noted(f"step {step} is skipped: a gradient overflowed fp16; the loss is scaled less now"))
            return
        self._state.skipped_in_row += 1
        self._on_event(
            Warned(
                f"step {step} is skipped: its loss or gradient is not finite",
                f"`alm data show --run {quoted(self._metrics.run)} --step {step}` prints its batch",
            )
        )

    def _too_many(self, number: int) -> AlmError:
        step = self._state.step
        return AlmError(
            f"the loss or gradient is no longer finite: {number} steps in a row were skipped, up to step {step}; "
            "weights and checkpoints are those from before",
            hint=f"show a batch with `alm data show --run {quoted(self._metrics.run)} --step {step}`, or start "
            "another run with a lower rate: `--set optim.lr=...`",
        )
