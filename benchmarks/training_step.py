"""A training step on this machine's CPU: alm against a plain PyTorch Llama and Hugging Face's, of the same shape.

All start from the same weights, see the same batch, clip, and use PyTorch's fused AdamW; the losses must agree.

    python benchmarks/training_step.py [PRESET]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import paired
import torch
from plain_llama import Plain
from torch import Tensor, nn

from alm import device
from alm.config import presets
from alm.config.load import Part, load
from alm.data.loader import MicroBatch
from alm.training import state
from alm.training.config import MODEL_SECTIONS, RunConfig
from alm.training.step import train_step

ROUNDS = 9
BATCH, LENGTH, VOCAB_SIZE, SEED = 4, 512, 8192, 1
# The first losses are the same sum in another order, in bf16 through every layer.
SAME_LOSS = {"fp32": 1e-3, "bf16": 3e-2}

Step = Callable[[MicroBatch], float]


def ours(config: RunConfig, choice: device.Choice) -> Step:
    """The step of `alm pretrain`."""
    live = state.fresh(config, choice)

    def step(batch: MicroBatch) -> float:
        made = train_step(
            live,
            [batch],
            targets=batch.target_count(),
            choice=choice,
            lr_factor=1.0,
            clip_norm=config.training.gradient_clip_norm,
            seed=SEED,
            should_stop=lambda: False,
        )
        assert made is not None
        return float(made.loss)

    return step


def plain(config: RunConfig, choice: device.Choice) -> Step:
    """The textbook's loop around the textbook's model."""
    model = Plain(config.model)
    model.load_state_dict(state.fresh(config, choice).model.state_dict())
    return _loop(model, lambda batch: model(batch.inputs, batch.targets), config, choice)


def hugging_face(config: RunConfig, choice: device.Choice) -> Step:
    """The same loop around `LlamaForCausalLM`."""
    import transformers

    c = config.model
    shape = transformers.LlamaConfig(
        vocab_size=c.known_vocab_size,
        hidden_size=c.d_model,
        intermediate_size=c.ffn_hidden_size,
        num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads,
        num_key_value_heads=c.n_kv_heads,
        max_position_embeddings=c.max_position_embeddings,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=True,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(shape)
    model.load_state_dict(state.fresh(config, choice).model.state_dict(), strict=False)
    model.tie_weights()

    def loss(batch: MicroBatch) -> Tensor:
        return model(batch.inputs, labels=batch.targets, shift_labels=batch.targets).loss

    return _loop(model, loss, config, choice)


def _loop(model: nn.Module, loss_of: Callable[[MicroBatch], Tensor], config: RunConfig, choice: device.Choice) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    model.train()

    def step(batch: MicroBatch) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=choice.precision == "bf16"):
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.training.gradient_clip_norm)
        optimizer.step()
        return float(loss.detach())

    return step


def main() -> None:
    """In fp32, and in bf16 where the device computes in it."""
    preset = sys.argv[1] if len(sys.argv) > 1 else "pico"
    parts = [Part(presets.find(preset), MODEL_SECTIONS)]
    config = load(RunConfig, parts, overrides=[f"model.vocab_size={VOCAB_SIZE}", f"training.seed={SEED}"])
    ids = torch.randint(VOCAB_SIZE, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(SEED))
    batch = MicroBatch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
    fastest = device.choose("cpu").precision
    for precision in ("fp32", "bf16") if fastest == "bf16" else ("fp32",):
        choice = device.choose("cpu", precision=precision)
        steps = {"alm": ours, "pytorch": plain, "transformers": hugging_face}
        live = {name: make(config, choice) for name, make in steps.items()}
        losses = {name: step(batch) for name, step in live.items()}
        near = max(losses.values()) - min(losses.values()) <= SAME_LOSS[precision]
        verdict = "equal losses" if near else f"OTHER LOSSES {losses}"
        print(f"training step: {preset}, {BATCH} x {LENGTH} tokens, {precision}, {verdict}", flush=True)
        programs = {name: _program(step, batch) for name, step in live.items()}
        paired.compare(programs, rounds=ROUNDS, work=BATCH * LENGTH, unit="tokens")


def _program(step: Step, batch: MicroBatch) -> paired.Program:
    return lambda: lambda: step(batch)


if __name__ == "__main__":
    main()
