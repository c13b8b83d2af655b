"""CPU seconds of one optimizer update: AdamW, and Muon with each orthogonalization and number of steps.

Beside them forward and backward of a step, fp32, so that the updates can be told as shares of a whole step.

    python benchmarks/optimizer.py [PRESET]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import paired
import torch

from alm import device
from alm.config import presets
from alm.config.load import Part, load
from alm.training import state
from alm.training.config import MODEL_SECTIONS, RunConfig

ROUNDS = 9
LENGTH, SEED = 256, 1
VOCAB_SIZE = {"1m": 4096, "pico": 32000}
TOKENS_PER_STEP = (2048, 1024)
MUON = {
    f"muon {method} {steps}": ["optim=muon", f"optim.orthogonalization={method}", f"optim.steps={steps}"]
    for method in ("polar_express", "newton_schulz")
    for steps in (4, 5, 6)
}
OPTIMIZERS = {"adamw": ["optim=adamw"], **MUON}


def configured(preset: str, overrides: list[str]) -> RunConfig:
    """A run with the model of `preset`."""
    parts = [Part(presets.find(preset), MODEL_SECTIONS)]
    return load(RunConfig, parts, overrides=[f"model.vocab_size={VOCAB_SIZE[preset]}", *overrides])


def update(preset: str, overrides: list[str]) -> Callable[[], object]:
    """One update of a model whose gradients are there."""
    live = state.init_state(configured(preset, overrides), device.choose("cpu", precision="fp32"))
    draw = torch.Generator().manual_seed(SEED)
    for parameter in live.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw) * 1e-3
    return live.optimizer.step


def gradients(preset: str, tokens: int) -> Callable[[], object]:
    """Forward and backward of `tokens` tokens at once."""
    model = state.init_state(configured(preset, []), device.choose("cpu", precision="fp32")).model.train()
    draw = torch.Generator().manual_seed(SEED)
    ids, targets = torch.randint(VOCAB_SIZE[preset], (2, tokens // LENGTH, LENGTH), generator=draw)

    def run() -> None:
        model.zero_grad()
        model.losses(model(ids), targets, divisor=tokens).total.backward()

    return run


def main() -> None:
    """Every shape, or the one that is named."""
    for preset in sys.argv[1:] or VOCAB_SIZE:
        made = {name: update(preset, overrides) for name, overrides in OPTIMIZERS.items()}
        made |= {f"forward and backward, {tokens} tokens": gradients(preset, tokens) for tokens in TOKENS_PER_STEP}
        print(f"optimizer: {preset}, vocabulary {VOCAB_SIZE[preset]:,}, {torch.get_num_threads()} threads", flush=True)
        costs = paired.compare({name: _program(call) for name, call in made.items()}, rounds=ROUNDS)
        for tokens in TOKENS_PER_STEP:
            rest = costs[f"forward and backward, {tokens} tokens"]
            shares = ", ".join(f"{name} {costs[name] / (costs[name] + rest):.1%}" for name in OPTIMIZERS)
            print(f"  share of a step of {tokens} tokens: {shares}", flush=True)


def _program(call: Callable[[], object]) -> paired.Program:
    return lambda: call


if __name__ == "__main__":
    main()
