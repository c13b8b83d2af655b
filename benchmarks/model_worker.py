"""One model that is trained on one batch, in a process of its own, step by step as its parent asks.

    python benchmarks/model_worker.py '{"tool": "alm", "shape": {...}, "batch": 8, "length": 256, ...}'

Each line on stdin is a number of steps. The answer is one JSON line: seconds, the last loss, and memory at the peak.
All tools see the same ids, clip at 1, and use AdamW with the same settings.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alm import device
from alm.data.loader import MicroBatch
from alm.model.config import ModelConfig
from alm.training import state
from alm.training.config import RunConfig
from alm.training.step import train_step

Job = dict[str, Any]  # Any: parsed JSON of our own making
Step = Callable[[], float]
CLIP = 1.0
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
ROOFLINE_WIDTH = {"cpu": 1024, "cuda": 8192}


def main() -> None:
    """Set up, then answer until the input ends."""
    job: Job = json.loads(sys.argv[1])
    if job["device"] == "cpu":
        torch.set_num_threads(job.get("threads", 1))
    if job["keep_memory"]:
        device.keep_freed_memory()
    before = _resident()
    step = globals()[job["tool"]](job)
    for line in sys.stdin:
        _synchronize(job)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            loss = step()
        _synchronize(job)
        cost = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        print(json.dumps({**cost, "loss": float(loss), "added": _peak(job) - before}), flush=True)


def alm(job: Job) -> Step:
    """The step of `alm pretrain`."""
    optim = {"lr": ADAMW["lr"], "betas": ADAMW["betas"], "weight_decay": ADAMW["weight_decay"]}
    training = {"compile": job["compile"]}
    config = RunConfig.model_validate(
        {"model": job["shape"], "training": training, "optim": {"kind": "adamw", **optim}}
    )
    choice = device.choose(job["device"], precision=job["precision"])
    live = state.init_state(config, choice)
    batch = MicroBatch(*_batch(job))
    targets = batch.target_count()

    def step() -> float:
        made = train_step(
            live, [batch], targets=targets, choice=choice, lr_factor=1.0, clip_norm=CLIP, seed=1, should_stop=bool
        )
        assert made is not None
        return made.loss

    return step


def as_nanogpt(shape: dict[str, Any]) -> dict[str, Any]:
    """The shape of ours that has nanoGPT's matrices."""
    changes = {"n_kv_heads": shape["n_heads"], "feedforward": "relu2", "ffn_hidden_size": 4 * shape["d_model"]}
    return {**shape, **changes}


def alm_as_nanogpt(job: Job) -> Step:
    """Ours with nanoGPT's matrices."""
    return alm({**job, "shape": as_nanogpt(job["shape"])})


def transformers(job: Job) -> Step:
    """`LlamaForCausalLM`, or Qwen3 with QK-norm, with the fused AdamW that its trainer takes."""
    import transformers as library

    c = ModelConfig.model_validate(job["shape"])
    values = {
        "vocab_size": c.known_vocab_size,
        "hidden_size": c.d_model,
        "intermediate_size": c.ffn_hidden_size,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.head_width,
        "max_position_embeddings": c.max_position_embeddings,
        "tie_word_embeddings": True,
        "use_cache": False,
    }
    name = "Qwen3" if c.qk_norm else "Llama"
    model = getattr(library, f"{name}ForCausalLM")(getattr(library, f"{name}Config")(**values))
    return _loop(
        model, lambda x, y: model(x, labels=y, shift_labels=y).loss, job, torch.optim.AdamW, fused=True, **ADAMW
    )


def litgpt(job: Job) -> Step:
    """litgpt's model and loss, as its `pretrain` puts them together."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import chunked_cross_entropy

    c = ModelConfig.model_validate(job["shape"])
    model = GPT(
        Config(
            n_layer=c.n_layers,
            n_head=c.n_heads,
            n_query_groups=c.n_kv_heads,
            n_embd=c.d_model,
            padded_vocab_size=c.known_vocab_size,
            vocab_size=c.known_vocab_size,
            block_size=c.max_position_embeddings,
            intermediate_size=c.ffn_hidden_size,
            mlp_class_name="LLaMAMLP",
            norm_class_name="RMSNorm",
            norm_qk=c.qk_norm,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
        )
    )
    model.apply(model._init_weights)
    model.transformer.wte.weight = model.lm_head.weight
    fused = job["device"] == "cuda" or job["keep_memory"]
    return _loop(model, lambda x, y: chunked_cross_entropy(model(x), y), job, torch.optim.AdamW, fused=fused, **ADAMW)


def nanogpt(job: Job) -> Step:
    """nanoGPT's model: GELU four times as wide, LayerNorm, learned positions, as many key as query heads."""
    specification = importlib.util.spec_from_file_location("nanogpt_model", Path(job["nanogpt"]) / "model.py")
    assert specification is not None
    assert specification.loader is not None
    library = importlib.util.module_from_spec(specification)
    sys.modules["nanogpt_model"] = library
    silent = sys.stdout
    sys.stdout = sys.stderr
    specification.loader.exec_module(library)
    c = ModelConfig.model_validate(job["shape"])
    model = library.GPT(
        library.GPTConfig(
            block_size=job["length"],
            vocab_size=c.known_vocab_size,
            n_layer=c.n_layers,
            n_head=c.n_heads,
            n_embd=c.d_model,
            dropout=0.0,
            bias=False,
        )
    )
    as_shipped = model.configure_optimizers(ADAMW["weight_decay"], ADAMW["lr"], ADAMW["betas"], job["device"])
    sys.stdout = silent
    if job["keep_memory"]:  # everything that ours has, this one has too
        groups = [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in as_shipped.param_groups]
        return _loop(model, lambda x, y: model(x, y)[1], job, lambda _, **k: torch.optim.AdamW(groups, **k), fused=True)
    return _loop(model, lambda x, y: model(x, y)[1], job, lambda _: as_shipped)


def roofline(job: Job) -> Step:
    """A product of two square matrices: a "step" is one of them."""
    width = ROOFLINE_WIDTH[job["device"]]
    dtype = torch.bfloat16 if job["precision"] == "bf16" else torch.float32
    a, b = (torch.randn(width, width, device=job["device"]).to(dtype) for _ in range(2))
    out = torch.empty(width, width, device=job["device"], dtype=dtype)

    def step() -> float:
        torch.mm(a, b, out=out)
        return 0.0

    return step


def _batch(job: Job) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(job["shape"]["vocab_size"], (job["batch"], job["length"] + 1), generator=generator)
    return ids[:, :-1].contiguous().to(job["device"]), ids[:, 1:].contiguous().to(job["device"])


def _loop(
    model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], job: Job, optimizer_of: Any, **settings: Any
) -> Step:
    model.to(job["device"]).train()
    optimizer = optimizer_of(model.parameters(), **settings)
    inputs, targets = _batch(job)
    run = torch.compile(loss_of) if job["compile"] else loss_of

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(job["device"], torch.bfloat16, enabled=job["precision"] == "bf16"):
            loss = run(inputs, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.detach()

    return step


def _synchronize(job: Job) -> None:
    if job["device"] == "cuda":
        torch.cuda.synchronize()


def _resident() -> float:
    """Megabytes of memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _peak(job: Job) -> float:
    """Megabytes of memory at most: of the GPU, or of the process."""
    if job["device"] == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20 + _resident()
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024  # type: ignore[index] # always there
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
