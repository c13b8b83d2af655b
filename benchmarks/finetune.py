"""A step of fine-tuning, beside TRL's `SFTTrainer`: CPU seconds, and the peak memory of a process.

    python benchmarks/finetune.py CHECKPOINT [--lora 16] [--rounds 3] [--tokens 512]

Both train on the same row of packed conversations in fp32, with one thread, AdamW and clipping: the model of
CHECKPOINT, an imported Llama. TRL keeps conversations apart by position ids (`padding_free`). Its checkpointing of
activations, which it has switched on, is off, since it costs a third more time. Needs `trl` and `peft`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paired import compare

from alm.checkpoint.load import load_checkpoint
from alm.data.loader import NO_TARGET, MicroBatch
from alm.device import choose, set_threads
from alm.export.hf_config import config_json
from alm.model.config import ModelConfig
from alm.tokenizers.file import Tokenizer
from alm.training.config import RunConfig
from alm.training.state import init_state, load_weights_
from alm.training.step import train_step

CONVERSATION = 64  # tokens, of which the second half are an answer


def row(model: ModelConfig, tokens: int) -> MicroBatch:
    """Random conversations, packed."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(100, model.known_vocab_size, (1, tokens + 1)))
    places = torch.arange(tokens)[None]
    targets = ids[:, 1:].masked_fill(places % CONVERSATION < CONVERSATION // 2, NO_TARGET)
    documents = (places // CONVERSATION).int()
    return MicroBatch(ids[:, :-1], targets, is_padded=True, documents=documents)


def ours(checkpoint: Path, lora: int, tokens: int) -> Callable[[], object]:
    """A step of alm."""
    found = load_checkpoint(checkpoint, with_optimizer=False)
    model = ModelConfig.model_validate(found.config["model"])
    values: dict[str, Any] = {"optim": {"kind": "adamw", "lr": 1e-5, "weight_decay": 0.0}, "lora": {"rank": lora}}
    config = RunConfig.model_validate({"model": model.model_dump(), **values})
    choice = choose("cpu", precision="fp32")
    state = init_state(config, choice)
    load_weights_(state.model, found.model)
    batch = row(model, tokens)
    return lambda: train_step(
        state,
        [batch],
        targets=batch.target_count(),
        choice=choice,
        lr_factor=1.0,
        clip_norm=1.0,
        seed=1,
        should_stop=bool,
    )


def of_trl(checkpoint: Path, lora: int, tokens: int) -> Callable[[], object]:
    """A step of TRL: what its loop does for one batch."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    found = load_checkpoint(checkpoint, with_optimizer=False)
    model = ModelConfig.model_validate(found.config["model"])
    own = Tokenizer.load(checkpoint.with_name("tokenizer.json"))
    values = config_json(model, own, ends=[own.end_of_text_id], dtype="fp32")
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), attn_implementation="sdpa").float()
    network.load_state_dict(found.model, strict=False)
    batch = row(model, tokens)
    labels = [-100, *(-100 if target < 0 else target for target in batch.targets[0].tolist()[:-1])]
    data = {"input_ids": batch.inputs[0].tolist(), "labels": labels}
    data["seq_lengths"] = [CONVERSATION] * (tokens // CONVERSATION)
    arguments = SFTConfig(
        output_dir="/tmp/alm-benchmark-trl",
        max_steps=1000,
        per_device_train_batch_size=1,
        learning_rate=1e-5,
        weight_decay=0.0,
        bf16=False,
        gradient_checkpointing=False,
        padding_free=True,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapters = LoraConfig(r=lora, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM") if lora else None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(checkpoint.with_name("tokenizer.json")), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    trainer = SFTTrainer(
        model=network,
        args=arguments,
        train_dataset=Dataset.from_list([data] * 4),
        processing_class=tokenizer,
        peft_config=adapters,
    )
    trainer.create_optimizer()
    inputs = next(iter(trainer.get_train_dataloader()))
    trainer.current_gradient_accumulation_steps = 1

    def step() -> None:
        trainer.model.train()
        trainer.training_step(trainer.model, dict(inputs), torch.tensor(batch.target_count()))
        torch.nn.utils.clip_grad_norm_([each for each in trainer.model.parameters() if each.requires_grad], 1.0)
        trainer.optimizer.step()
        trainer.model.zero_grad()

    return step


PROGRAMS = {"alm": ours, "trl": of_trl}


def peak(name: str, arguments: argparse.Namespace) -> float:
    """Megabytes of a process that does two steps."""
    words = [sys.executable, __file__, str(arguments.checkpoint), "--lora", str(arguments.lora), "--only", name]
    found = subprocess.run([*words, "--tokens", str(arguments.tokens)], check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--lora", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--only", choices=PROGRAMS)
    arguments = parser.parse_args()
    set_threads(1)
    given = arguments.checkpoint, arguments.lora, arguments.tokens
    if arguments.only:
        step = PROGRAMS[arguments.only](*given)
        step()
        step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    for name in PROGRAMS:
        print(f"  {name}: {peak(name, arguments):,.0f} MB at the peak of a process", flush=True)
    steps = {name: make(*given) for name, make in PROGRAMS.items()}
    compare({name: lambda step=step: step for name, step in steps.items()}, rounds=arguments.rounds)  # type: ignore[misc]


if __name__ == "__main__":
    main()
