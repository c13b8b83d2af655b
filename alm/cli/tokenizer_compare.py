"""`alm tokenizer compare`: the tables, and advice on the size of the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alm.cli import ui
from alm.errors import ConfigError, InputError
from alm.tokenizers.compare import Measured, measure, open_tokenizer
from alm.tokenizers.probes import PROBES

Texts = dict[str, list[str]]


def run(paths: Sequence[Path], given: Sequence[str], model: str | None, *, as_json: bool, quiet: bool) -> None:
    """Measure the tokenizers at `paths` on the given text, or on the built-in probes, and print the results."""
    if model is not None and not given:
        raise ConfigError(
            "advice on the vocabulary needs the text you train on", hint="add it, as in `--text data/clean`"
        )
    opened = [open_tokenizer(path) for path in paths]
    texts = _read(given) if given else {kind: [text] for kind, text in PROBES.items()}
    names = _names(paths)
    found = [measure(name, tokenizer, texts) for name, tokenizer in zip(names, opened, strict=True)]
    values: dict[str, Any] = {"tokenizers": [_values(one) for one in found]}  # Any: JSON
    lines = _table(found)
    if model is not None:
        advised, more = _advice(paths, texts, model)
        values["advice"], lines = advised, [*lines, "", *more]
    ui.show_result(values, lines, as_json=as_json)
    if model is None and not (quiet or as_json):
        ui.echo_err("add `--text data/clean --model pico` for advice on the size of the vocabulary")


def _read(given: Sequence[str]) -> Texts:
    """The documents of each source."""
    from alm.corpus.read import find, read_documents

    texts: Texts = {}
    for document in read_documents(find(given)):
        texts.setdefault(document.source, []).append(document.text)
    if not texts:
        raise InputError("the text is empty: there is nothing to compare on", hint="run `alm corpus prepare` first")
    return texts


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest path endings that are all different."""
    for parts in range(1, 1 + max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _values(found: Measured) -> dict[str, Any]:  # Any: JSON
    return {
        "name": found.name,
        "vocab_size": found.vocab_size,
        "bytes_per_token": {kind: round(found.bytes_per_token(kind), 4) for kind in found.bytes},
        "total_bytes_per_token": round(found.bytes_per_token(), 4),
        "used_ids": found.used,
        "commonest_hundred_share": round(found.commonest_share, 4),
        "megabytes_per_second": round(found.megabytes_per_second, 2),
    }


def _table(found: Sequence[Measured]) -> list[str]:
    rows = [["bytes per token", *(one.name for one in found)]]
    for kind in found[0].bytes:
        rows.append([kind, *_marked([one.bytes_per_token(kind) for one in found])])
    rows.append(["all of it", *_marked([one.bytes_per_token() for one in found])])
    rows.append([])
    rows.append(["vocabulary", *(f"{one.vocab_size:,}" for one in found)])
    rows.append(["ids that occur", *(f"{one.used:,} ({one.used / one.vocab_size:.0%})" for one in found)])
    rows.append(["share of the 100 commonest", *(f"{one.commonest_share:.0%}" for one in found)])
    rows.append(["MB per CPU second here", *(f"{one.megabytes_per_second:.1f}" for one in found)])
    return _aligned(rows)


def _marked(values: Sequence[float]) -> list[str]:
    """The numbers, with a mark at the best if there are several."""
    best = max(values)
    return [f"{value:.2f}{'*' if value == best and len(values) > 1 else ' '}" for value in values]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the first column to the left and the others to the right."""
    columns = max(len(row) for row in rows)
    widths = [max((len(row[place]) for row in rows if len(row) > place), default=0) for place in range(columns)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _advice(paths: Sequence[Path], texts: Texts, model: str) -> tuple[dict[str, Any], list[str]]:  # Any: JSON
    from dataclasses import asdict

    from alm.config import presets
    from alm.config.load import Part, load
    from alm.model.config import ModelConfig
    from alm.model.count import count
    from alm.tokenizers.file import Tokenizer
    from alm.tokenizers.vocabulary import OFTEN_ENOUGH, Cost, best, size_options
    from alm.training.config import RunConfig

    shape: ModelConfig = load(RunConfig, [Part(presets.find(model))]).model
    context = shape.max_position_embeddings

    def cost(vocab_size: int) -> Cost:
        counted = count(shape.model_copy(update={"vocab_size": vocab_size}))
        return Cost(counted.total, counted.embedding + counted.head, counted.training_flops_per_token(context))

    tokenizer = max((Tokenizer.load(path) for path in paths), key=lambda one: one.vocab_size)
    found = size_options(tokenizer, [text for listed in texts.values() for text in listed], cost)
    advised = best(found)
    rows = [["vocabulary", "parameters", "embedding", "bytes/token", "context", "MFLOP/byte", "rare ids occur"]]
    for option in found:
        rows.append(
            [
                f"{option.vocab_size:,}{' <' if option is advised else ''}",
                f"{option.parameters / 1e6:.1f}M",
                f"{option.embedding_share:.0%}",
                f"{option.bytes_per_token:.2f}",
                ui.size(option.bytes_per_token * context),
                f"{option.flops_per_byte / 1e6:.1f}",
                f"{option.rare:,}x",
            ]
        )
    why = (
        f"For `{model}`, {advised.vocab_size:,} tokens: a larger vocabulary shortens this text by less than its output "
        f"layer adds to each token"
    )
    if not found[-1].is_seen_enough:
        why += f", or leaves a tenth of its tokens fewer than {OFTEN_ENOUGH} times in it"
    values = {"vocab_size": advised.vocab_size, "choices": [asdict(option) for option in found]}
    return values, [*_aligned(rows), "", why + ".", "The reasoning is in docs/vocabulary.md."]
