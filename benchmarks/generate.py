"""How fast text is generated, against transformers, litgpt and llama.cpp, in one process and in turn.

    python benchmarks/generate.py [--rounds 9] [--threads 1] [--checkpoint runs/smollm2]

fp32. Weights are random and the shape is pico's with 32,000 tokens, or they are those of a checkpoint. Four questions:
tokens per second after a prompt of 64, for one text and for eight; what share of the memory's bandwidth the first comes
to, as every token reads every weight once; and the time to the first token after a prompt of 512. Peers that are not
installed are left out (`nox -s bench_generate` has all of them, in an environment of its own). All draw with
temperature 0.8 from the 40 likeliest. A token costs what many tokens take less what one takes, by as many. CPU seconds
of the process are compared, which does nothing else.

`--types int8 int4` asks the same of rounded weights, against llama.cpp's Q8_0 and Q4_0. The package xllamacpp is built
for AVX2: it does not use the instructions of newer CPUs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import paired
import torch
from torch import Tensor

from alm.export.source import Source, load_source
from alm.export.targets._gguf_types import Dtype
from alm.generation.config import SamplingConfig
from alm.generation.engine import Engine, Request
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.quant.codes import Matrix, TypeName, to_int4, to_int8
from alm.quant.network import network
from alm.tokenizers.file import Tokenizer

VOCAB_SIZE = 32_000
SHORT, LONG, NEW, ROWS, MOST_ROWS = 64, 512, 96, 8, 32
PEERS: dict[TypeName | Literal["fp32"], Dtype] = {"fp32": "f32", "int8": "q8_0", "int4": "q4_0"}
TEMPERATURE, TOP_K = 0.8, 40
READ, WIDTH = 100_000_000, 400  # numbers of fp32, and how many lie apart
Prompts = list[list[int]]
Tool = Callable[[Prompts, int], object]
"""Continues prompts of one length by so many tokens each."""


def main() -> None:
    """All questions to all that are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--types", nargs="+", choices=PEERS, default=["fp32"])
    parser.add_argument("--checkpoint", type=Path, help="the last one of a run, as `alm import` makes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name).resolve()
        source = load_source(arguments.checkpoint) if arguments.checkpoint else _source(folder)
        print(f"{source.parameters / 1e6:.1f}M parameters, threads: {arguments.threads}")
        for to in arguments.types:
            _ask(to, source, folder, stack, arguments.rounds)


def _ask(to: TypeName | Literal["fp32"], source: Source, folder: Path, stack: ExitStack, rounds: int) -> None:
    tools = _tools(source, folder, stack) if to == "fp32" else _rounded_tools(to, source, folder, stack)
    short, long = ([[17 * n % VOCAB_SIZE for n in range(length)]] for length in (SHORT, LONG))
    print(f"{to}: one text, {NEW} tokens after {SHORT}")
    rates = _compare(tools, rounds, lambda tool: _decoding(tool, short), NEW)
    if to == "fp32":
        _against_bandwidth(rates["alm"], source.parameters * 4, rounds)
    alike = {name: tool for name, tool in tools.items() if name in ("alm", "transformers")}
    for count in (ROWS, MOST_ROWS):
        print(f"{to}: {count} texts, {NEW} tokens each after {SHORT}")
        _compare(alike, rounds, lambda tool, count=count: _decoding(tool, short * count), count * NEW)
    print(f"{to}: the first token after {LONG}")
    _compare(tools, rounds, lambda tool: paired.measured(lambda: tool(long, 1)), LONG)


def _decoding(tool: Tool, prompts: Prompts) -> paired.Cost:
    many, one = (paired.measured(lambda new=new: tool(prompts, new)) for new in (NEW + 1, 1))
    return paired.Cost(many.cpu - one.cpu, many.wall - one.wall)


def _compare(
    tools: Mapping[str, Tool], rounds: int, measure: Callable[[Tool], paired.Cost], tokens: int
) -> dict[str, float]:
    """Tokens per CPU second of each, printed with our share of what the others need."""
    costs: dict[str, list[paired.Cost]] = {name: [] for name in tools}
    names = list(tools)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            cost = measure(tools[name])
            if number:  # the first round warms up
                costs[name].append(cost)
    rates = {name: tokens / statistics.median(cost.cpu for cost in found) for name, found in costs.items()}
    for name, found in costs.items():
        ratios = [theirs.cpu / ours.cpu for theirs, ours in zip(found, costs["alm"], strict=True)]
        wall = tokens / statistics.median(cost.wall for cost in found)
        against = "" if name == "alm" else f"  alm is faster by {paired.with_interval(ratios)}"
        print(f"  {name:<13} {rates[name]:8.1f} tokens per CPU second  {wall:8.1f} per second{against}", flush=True)
    return rates


def _against_bandwidth(rate: float, size: int, rounds: int) -> None:
    """Against the faster of two ways to read 400 MB once: in a row, and as MKL reads a matrix of many columns."""
    numbers = torch.ones(WIDTH, READ // WIDTH)
    row = torch.ones(1, WIDTH)
    ways: list[Callable[[], object]] = [numbers.sum, lambda: row @ numbers]
    fastest = min(statistics.median(paired.measured(way).cpu for _ in range(rounds)) for way in ways)
    bandwidth, share = numbers.nbytes / fastest, rate * size * fastest / numbers.nbytes
    print(f"  memory: {bandwidth / 1e9:.1f} GB/s, at most {bandwidth / size:.0f} tokens, of which alm has {share:.0%}")


def _source(folder: Path) -> Source:
    merges = [(16 + number // 256, 16 + number % 256) for number in range(VOCAB_SIZE - 272)]
    model = Transformer(ModelConfig(vocab_size=VOCAB_SIZE))
    initialize(model, seed=1)
    tokenizer = Tokenizer.from_merges(merges)
    tokenizer.save(folder / "tokenizer.json")
    return Source(
        path=folder / "ckpt-last.pt",
        step=0,
        sha256="0" * 64,
        model=model.config,
        load=model.state_dict,
        tokenizer=tokenizer,
        tokenizer_path=folder / "tokenizer.json",
        run=None,
    )


def _tools(source: Source, folder: Path, stack: ExitStack) -> dict[str, Tool]:
    tools: dict[str, Tool] = {"alm": _alm(source.network)}
    if find_spec("transformers"):
        tools["transformers"] = _transformers(source, folder)
    if find_spec("litgpt") and source.model.vocab_size == VOCAB_SIZE:
        tools["litgpt"] = _litgpt(source)
    if find_spec("xllamacpp"):
        tools["llama.cpp"] = _llama_cpp(source, folder, stack, PEERS["fp32"])
    return tools


def _rounded_tools(to: TypeName, source: Source, folder: Path, stack: ExitStack) -> dict[str, Tool]:
    """All matrices are rounded, without calibration: how fast codes are read does not depend on their values."""
    weights: dict[str, Tensor | Matrix] = {**source.weights}
    round_off = to_int8 if to == "int8" else to_int4
    weights.update((name, round_off(weight)) for name, weight in source.weights.items() if weight.dim() == 2)
    tools = {"alm": _alm(network(source.model, weights))}
    if find_spec("xllamacpp"):
        tools["llama.cpp"] = _llama_cpp(source, folder, stack, PEERS[to])
    return tools


def _alm(model: Transformer) -> Tool:
    def tool(prompts: Prompts, new: int) -> object:
        engine = Engine(model, end_of_text_id=-1, rows=len(prompts), max_tokens=len(prompts[0]) + new)
        for seed, prompt in enumerate(prompts):
            sampling = SamplingConfig(temperature=TEMPERATURE, top_k=TOP_K, max_tokens=new, seed=seed)
            engine.add(Request(prompt, sampling))
        return list(engine.run())

    return tool


def _transformers(source: Source, folder: Path) -> Tool:
    from transformers import AutoModelForCausalLM

    from alm.export.targets import huggingface

    place = folder / "huggingface"
    place.mkdir()
    huggingface.write(huggingface.Config(), source, place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    settings = {
        "do_sample": True,
        "temperature": TEMPERATURE,
        "top_k": TOP_K,
        "pad_token_id": 0,
        "suppress_tokens": None,
    }

    @torch.inference_mode()
    def tool(prompts: Prompts, new: int) -> object:
        ids = torch.tensor(prompts)
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **settings)

    return tool


def _litgpt(source: Source) -> Tool:
    from litgpt import GPT, Config
    from litgpt.generate.base import generate

    config = source.model
    theirs = Config(
        block_size=config.max_position_embeddings, vocab_size=VOCAB_SIZE, padded_vocab_size=VOCAB_SIZE,
        n_layer=config.n_layers, n_head=config.n_heads, n_query_groups=config.n_kv_heads, n_embd=config.d_model,
        rotary_percentage=1.0, parallel_residual=False, bias=False, norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP", intermediate_size=config.ffn_hidden_size,
    )  # fmt: skip
    model = GPT(theirs).eval()
    model.set_kv_cache(batch_size=1)

    @torch.inference_mode()
    def tool(prompts: Prompts, new: int) -> object:
        model.max_seq_length = config.max_position_embeddings
        return generate(
            model, torch.tensor(prompts[0]), len(prompts[0]) + new, temperature=TEMPERATURE, top_k=TOP_K, eos_id=None
        )

    return tool


def _llama_cpp(source: Source, folder: Path, stack: ExitStack, dtype: Dtype) -> Tool:
    from alm.export.targets import _llama_cpp, gguf

    config = gguf.Config(dtype=dtype)
    gguf.write(config, source, folder)
    path = folder / gguf.file_name(config, source)
    server = stack.enter_context(_llama_cpp.serving(path, context=min(1024, source.model.max_position_embeddings)))
    options = {"temperature": TEMPERATURE, "top_k": TOP_K, "ignore_eos": True}

    def tool(prompts: Prompts, new: int) -> object:
        return server.complete(prompts[0], new, **options)

    return tool


if __name__ == "__main__":
    main()
