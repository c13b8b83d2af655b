"""How well a model tells the built-in tales: bits per byte of unseen ones, and whether what it tells is consistent.

    python benchmarks/tales.py CHECKPOINT... [--samples 50] [--temperature 0.4] [--show]
    python benchmarks/tales.py --generator 500

CHECKPOINT is one of a run on the tales, such as `alm-quickstart/runs/tales/ckpt-last.pt`. From the quickstart's prompts
in turn, and with seeds that count from 0, it tells as many tokens as a quickstart does, and
`tales_judge` says which rules of the tales each text breaks. Bits per byte are those of tales with a
seed of their own, each from its first token to its end. `--generator` judges tales themselves, whole and cut: none of
them may be at fault.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import Counter
from pathlib import Path

import torch
from tales_judge import RULES, judge

from alm.corpus.sources.tales.tell import tell
from alm.generation.completions import Completion, seed_of, write
from alm.generation.config import SamplingConfig
from alm.generation.load import LoadedModel, load_model
from alm.quickstart.run import PROMPTS, SAMPLE_TOKENS, TEMPERATURE

UNSEEN_SEED = 4242  # no configuration of the project has it
CUTS = (None, 900, 600, 300)  # characters of a tale


def main() -> None:
    """Judge models, or the generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--top-k", type=int, default=SamplingConfig().top_k)
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--unseen", type=int, default=200, help="tales for bits per byte")
    parser.add_argument("--show", action="store_true", help="print every text and its faults")
    parser.add_argument("--generator", type=int, metavar="TALES")
    arguments = parser.parse_args()
    if arguments.generator:
        judge_generator(arguments.generator)
    for path in arguments.checkpoints:
        model = load_model(path, device_name="cpu")
        print(f"{path}  {bits_per_byte(model, arguments.unseen):.4f} bits/byte of unseen tales")
        report(samples(model, arguments), show=arguments.show)


def judge_generator(tales: int) -> None:
    """Print how many of the generator's own tales are found at fault."""
    texts = [tell(seed=UNSEEN_SEED, index=index)[:cut] for index in range(tales) for cut in CUTS]
    report(texts, show=False)


def samples(model: LoadedModel, arguments: argparse.Namespace) -> list[str]:
    """The texts that are judged, each with its prompt: what `alm sample` tells with each seed."""
    prompts = [arguments.prompts[number % len(arguments.prompts)] for number in range(arguments.samples)]
    sampling = SamplingConfig(
        seed=0, max_tokens=SAMPLE_TOKENS, temperature=arguments.temperature, top_k=arguments.top_k
    )
    texts = [Completion(seed_of(sampling, number), prompt) for number, prompt in enumerate(prompts)]
    for event in write(model.model, model.tokenizer, prompts, sampling):
        texts[event.number].add(event)
    return [text.text for text in texts]


def report(texts: list[str], *, show: bool) -> None:
    """Print the share of texts without a fault, and how many break each rule."""
    found = [judge(text) for text in texts]
    if show:
        for text, faults in zip(texts, found, strict=True):
            print("-" * 100, text, *(f"  {fault.rule}: {fault.where}" for fault in faults), sep="\n")
    consistent = sum(not faults for faults in found)
    words = statistics.mean(len(text.split()) for text in texts)
    broken = Counter(fault.rule for faults in found for fault in faults)
    print(f"  {consistent} of {len(texts)} consistent ({consistent / len(texts):.0%}), {words:.0f} words on average")
    print("  broken: " + ", ".join(f"{rule} {broken[rule]}" for rule in RULES))


@torch.inference_mode()
def bits_per_byte(model: LoadedModel, tales: int) -> float:
    """Of unseen tales, each from its second token to its end of text."""
    nats, size = 0.0, 0
    for index in range(tales):
        tale = tell(seed=UNSEEN_SEED, index=index)
        ids = torch.tensor([*model.tokenizer.encode(tale), model.tokenizer.end_of_text_id])
        scores = model.model.logits(model.model(ids[None, :-1]))[0]
        nats += float(torch.nn.functional.cross_entropy(scores, ids[1:], reduction="sum"))
        size += len(tale.encode()) - len(model.tokenizer.decode(ids[:1].tolist()).encode())
    return nats / math.log(2) / size


if __name__ == "__main__":
    main()
