"""Time to quality: what a CPU budget buys, with alm and with nanoGPT's recipe for a character model on a CPU.

    python benchmarks/quality.py TEXT... --nanogpt FOLDER [--seconds 60 180 600] [--seeds 1 2 3] [--same]

TEXT are texts (perhaps `.gz`) of which the last tenth of bytes is held out; FOLDER a checkout of
github.com/karpathy/nanoGPT. Both train in processes of their own on one thread. nanoGPT runs its own `train.py` with
the settings of its README for a CPU; with `--same`, its GPT gets our tokens, our context and batch, and as many
parameters as ours has, at the best of three learning rates for a tenth of the budget. A step of each is timed first,
and both the number of steps and the schedule are fitted to the budget. Loading libraries is not counted; alm's
tokenizer and packing are. Scores are bits per byte over the whole held-out text: every token is predicted once, from
at most a context before it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HELD_OUT = 0.1
NANOGPT = {
    "device": "cpu", "compile": False, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128,
    "dropout": 0.0, "eval_iters": 1, "log_interval": 1000000, "always_save_checkpoint": True,
}  # fmt: skip
RATES = (1e-3, 2e-3, 4e-3)  # what is tried for nanoGPT with `--same`
SHARE = 0.1  # of the budget, for each
# The longer the budget, the larger the model, the more often it sees the text, and the more dropout it needs.
OURS = {
    60: {"vocab": 1024, "seq_len": 128, "batch": 4, "d_model": 128, "n_layers": 4, "dropout": 0.0},
    180: {"vocab": 1024, "seq_len": 128, "batch": 8, "d_model": 192, "n_layers": 4, "dropout": 0.1},
    600: {"vocab": 1024, "seq_len": 128, "batch": 8, "d_model": 256, "n_layers": 4, "dropout": 0.2},
}
Recipe = dict[str, Any]


def main() -> None:
    """Both, for each budget and seed, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--same", action="store_true", help="nanoGPT with our tokens and as many parameters")
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--seconds", type=int, nargs="+", default=list(OURS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], help="changes to our recipe: d_model=160")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_train_ours(json.loads(arguments.one))))
        return
    parts = [_cut(path) for path in arguments.text]
    changes = {key: _value(value) for key, _, value in (change.partition("=") for change in arguments.set)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for name, texts in zip(("train", "held"), zip(*parts, strict=True), strict=True):
            (folder / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8", newline="")
        for seconds in arguments.seconds:
            _compare(folder, seconds, arguments, {**OURS[min(OURS, key=lambda s: abs(s - seconds))], **changes})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _cut(path: Path) -> tuple[str, str]:
    """The text in `path`: what is trained on, and what is held out."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text, cut = raw.decode(), len(raw[: round(len(raw) * (1 - HELD_OUT))].decode(errors="ignore"))
    return text[:cut], text[cut:]


def _compare(folder: Path, seconds: int, arguments: argparse.Namespace, recipe: Recipe) -> None:
    print(f"{seconds} CPU seconds, {recipe}", flush=True)
    found: dict[str, list[float]] = {"alm": [], "nanogpt": []}
    for seed in arguments.seeds:
        job = {**recipe, "folder": str(folder), "seed": seed, "seconds": seconds}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "-", "--one", json.dumps(job)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        ours = json.loads(done.stdout.splitlines()[-1])
        found["alm"].append(ours["bits_per_byte"])
        print(f"  alm      seed {seed}  {ours}", flush=True)
        if arguments.nanogpt:
            peer = folder / ("same" if arguments.same else "characters")
            shape = _same_shape(folder, recipe, ours["parameters"]) if arguments.same else {}
            theirs = nanogpt(peer, arguments.nanogpt.resolve(), shape, seconds=seconds, seed=seed)
            found["nanogpt"].append(theirs["bits_per_byte"])
            print(f"  nanogpt  seed {seed}  {theirs}", flush=True)
    for name, values in found.items():
        if values:
            print(
                f"  {name:<8} {statistics.mean(values):.4f} bits/byte, {min(values):.4f} to {max(values):.4f}",
                flush=True,
            )


# alm


def _train_ours(job: Recipe) -> dict[str, float]:
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.events import Stepped
    from alm.generation.load import load_model
    from alm.packing.config import PackConfig
    from alm.packing.pack import pack
    from alm.tokenizers.config import TokenizerConfig
    from alm.tokenizers.train import train_tokenizer
    from alm.training.config import RunConfig
    from alm.training.pretrain import pretrain

    folder, out = Path(job["folder"]), Path(tempfile.mkdtemp(dir=job["folder"]))
    started = time.process_time()
    train_tokenizer(
        TokenizerConfig(vocab_size=job["vocab"]), inputs=[str(folder / "train.txt")], out=out / "tokenizer.json"
    )
    pack(
        PackConfig(seq_len=job["seq_len"], validation_fraction=0.0),
        tokenizer=out / "tokenizer.json",
        clean=[str(folder / "train.txt")],
        out=out / "packed",
    )
    spent = time.process_time() - started

    def run(steps: int, name: str) -> float:
        """CPU seconds of the steps."""
        overrides = _overrides(job, steps)
        config = load(RunConfig, [Part(presets.find("train"))], overrides=overrides)
        clock = {"last": 0.0, "spent": 0.0}

        def on_event(event: object) -> None:
            now = time.process_time()
            if isinstance(event, Stepped):
                clock["spent"] += now - clock["last"] if clock["last"] else 0.0
                clock["last"] = now

        pretrain(config, data=out / "packed", out=out / name, device_name="cpu", on_event=on_event)
        return clock["spent"] * steps / (steps - 1)

    trial = 40
    steps = round((job["seconds"] - spent) / (run(trial, "trial") / trial))
    took = run(steps, "run") + spent
    loaded = load_model(out / "run" / "ckpt-last.pt")
    bits = _score_ours(loaded, (folder / "held.txt").read_text(encoding="utf-8"), job)
    (out / "tokenizer.json").replace(folder / "tokenizer.json")
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    return {"bits_per_byte": round(bits, 4), "steps": steps, "seconds": round(took, 1), "parameters": parameters}


def _overrides(job: Recipe, steps: int) -> list[str]:
    heads = job["d_model"] // 64
    values = {
        "model.d_model": job["d_model"], "model.n_layers": job["n_layers"], "model.n_heads": heads,
        "model.n_kv_heads": 1, "model.ffn_hidden_size": job["d_model"] * 3, "model.dropout": job["dropout"],
        "model.max_position_embeddings": job["seq_len"], "model.qk_norm": job.get("qk_norm", True),
        "model.x0_skip": job.get("extras", True), "model.value_residual": job.get("extras", True),
        "model.smear": job.get("extras", True),
        "training.max_steps": steps, "training.micro_batch_size": job["batch"], "training.gradient_accumulation": 1,
        "training.precision": "fp32", "training.threads": 1, "training.seed": job["seed"],
        "training.checkpoint_interval": steps,
        "optim": {"kind": job.get("optim", "muon")},
        "optim.lr": job.get("lr", 0.02), "optim.embedding_lr": job.get("embedding_lr", 3e-2),
        "scheduler.kind": "wsd", "scheduler.warmup_steps": max(1, steps // 50), "scheduler.final_fraction": 0.02,
        "samples.prompts": [],
    }  # fmt: skip
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _score_ours(loaded: Any, text: str, job: Recipe) -> float:
    import torch

    ids = [0, *loaded.tokenizer.encode(text)]
    nats = 0.0
    for start in range(0, len(ids) - 1, job["seq_len"]):
        window = torch.tensor([ids[start : start + job["seq_len"] + 1]])
        with torch.no_grad():
            nats += float(loaded.model.token_losses(loaded.model(window[:, :-1]), window[:, 1:]).sum())
    return nats / math.log(2) / len(text.encode())


# nanoGPT


def nanogpt(folder: Path, source: Path, shape: Recipe, *, seconds: int, seed: int) -> dict[str, float]:
    """Its `train.py` with as many steps as fit in `seconds`, and the score of what it made."""
    data = folder / "data" / "held_out"
    if not data.exists():
        data.mkdir(parents=True)
        (_tokens if shape else _characters)(folder.parent, data)
        for name in ("config", "configurator.py", "model.py"):
            (folder / name).symlink_to(source / name)
        script = (source / "train.py").read_text()
        assert "1337" in script
        (folder / "train.py").write_text(script)
    few, many = (_run_nanogpt(folder, steps, seed, shape) for steps in (20, 120))
    each = (many - few) / 100
    if shape and "learning_rate" not in shape:
        tried = {}
        for rate in RATES:
            _run_nanogpt(folder, round(SHARE * seconds / each), seed, {**shape, "learning_rate": rate})
            tried[rate] = _score_nanogpt(folder, data)
        shape["learning_rate"] = min(tried, key=lambda rate: tried[rate])
        print(f"  nanogpt  {tried}", flush=True)
    steps = round(seconds / each)
    took = _run_nanogpt(folder, steps, seed, shape) - (few - 20 * each)
    return {"bits_per_byte": round(_score_nanogpt(folder, data), 4), "steps": steps, "seconds": round(took, 1)}


_SHAPES: dict[str, Recipe] = {}


def _same_shape(folder: Path, recipe: Recipe, parameters: int) -> Recipe:
    """nanoGPT with our context, batch and dropout, and the width that comes nearest to our parameters."""

    def size(width: int) -> int:
        return (recipe["vocab"] + recipe["seq_len"]) * width + recipe["n_layers"] * (12 * width**2 + 2 * width) + width

    width = min(range(32, 1024, 16), key=lambda width: abs(size(width) - parameters))
    heads = max(n for n in range(1, 17) if width % n == 0 and width // n >= 32)
    shape = {
        "block_size": recipe["seq_len"], "batch_size": recipe["batch"], "n_layer": recipe["n_layers"],
        "n_head": heads, "n_embd": width, "dropout": recipe["dropout"],
    }  # fmt: skip
    return _SHAPES.setdefault(json.dumps(shape), shape)


def _characters(folder: Path, data: Path) -> None:
    texts = {name: (folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("train", "held")}
    characters = sorted(set("".join(texts.values())))
    stoi = {character: number for number, character in enumerate(characters)}
    for name, file in (("train", "train.bin"), ("held", "val.bin")):
        np.array([stoi[character] for character in texts[name]], dtype=np.uint16).tofile(data / file)
    meta = {"vocab_size": len(characters), "stoi": stoi, "itos": dict(enumerate(characters))}
    (data / "meta.pkl").write_bytes(pickle.dumps(meta))


def _tokens(folder: Path, data: Path) -> None:
    from alm.tokenizers.file import Tokenizer

    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    for name, file in (("train", "train.bin"), ("held", "val.bin")):
        text = (folder / f"{name}.txt").read_text(encoding="utf-8")
        np.array([0, *tokenizer.encode(text)], dtype=np.uint16).tofile(data / file)
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": tokenizer.vocab_size}))


def _run_nanogpt(folder: Path, steps: int, seed: int, shape: Recipe) -> float:
    """CPU seconds of the whole process."""
    script = folder / f"train-{seed}.py"
    script.write_text((folder / "train.py").read_text().replace("1337", str(seed)))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    fitted = {"max_iters": steps, "lr_decay_iters": steps, "eval_interval": steps}
    rate = shape.get("learning_rate", 1e-3)
    rates = {"min_lr": rate / 10, "warmup_iters": min(100, max(1, steps // 20))} if shape else {}
    settings = {**NANOGPT, **shape, **rates, **fitted, "dataset": "held_out", "out_dir": "out"}
    flags = [f"--{key}={value}" for key, value in settings.items()]
    command = [sys.executable, script.name, "config/train_shakespeare_char.py", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    subprocess.run(command, cwd=folder, env=environment, stdout=quiet, stderr=quiet, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _score_nanogpt(folder: Path, data: Path) -> float:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    import torch
    from model import GPT, GPTConfig
    from torch.nn import functional as F

    saved = torch.load(folder / "out" / "ckpt.pt", weights_only=False)
    model = GPT(GPTConfig(**saved["model_args"]))
    model.load_state_dict({key.removeprefix("_orig_mod."): value for key, value in saved["model"].items()})
    model.eval()
    ids = torch.from_numpy(np.fromfile(data / "val.bin", dtype=np.uint16).astype(np.int64))
    size, nats = saved["model_args"]["block_size"], 0.0
    for start in range(0, len(ids) - 1, size):
        window = ids[start : start + size + 1][None]
        with torch.no_grad():
            logits, _ = model(window[:, :-1], window[:, 1:])
        nats += float(F.cross_entropy(logits[0], window[0, 1:], reduction="sum"))
    return nats / math.log(2) / (folder.parent / "held.txt").stat().st_size


if __name__ == "__main__":
    main()
