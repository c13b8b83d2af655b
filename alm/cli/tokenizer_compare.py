"""`alm tokenizer compare`: the tables, and advice on the size of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm.cli import ui
from alm.errors import ConfigError, InputError
from alm.tokenizers.compare import Compared, Measured, Ours, measure, open_tokenizer
from alm.tokenizers.probes import PROBES

if TYPE_CHECKING:
    from alm.model.config import ModelConfig
    from alm.tokenizers.vocabulary import Cost, SizeOption

Texts = dict[str, list[str]]


def run(paths: Sequence[Path], given: Sequence[str], model: str | None, *, as_json: bool, quiet: bool) -> None:
    """Measure the tokenizers at `paths` on the given text, or on the built-in probes, and print the results."""
    if model is not None and not given:
        raise ConfigError(
            "advice on the vocabulary needs the text you train on", hint="add it, as in `--text data/clean`"
        )
    shape = None if model is None else _shape(model)
    opened = dict(zip(_names(paths), map(open_tokenizer, paths), strict=True))
    texts = _read(given) if given else {kind: [text] for kind, text in PROBES.items()}
    found = [measure(name, tokenizer, texts) for name, tokenizer in opened.items()]
    values: dict[str, Any] = {"tokenizers": [_values(one) for one in found]}  # Any: JSON
    lines = _table(found)
    if model is not None and shape is not None:
        advised, more = _advice(opened, texts, model, shape)
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


def _shape(model: str) -> ModelConfig:
    """The model of a run or of an imported model, by its folder, or of a file or preset."""
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.training.config import RunConfig

    own = Path(model) / "config.yaml"
    return load(RunConfig, [Part(own if own.is_file() else presets.find(model))]).model


def _advice(
    opened: Mapping[str, Compared], texts: Texts, model: str, shape: ModelConfig
) -> tuple[dict[str, Any], list[str]]:  # Any: JSON
    """What each vocabulary would cost the model on this text, and which one is best if there are several."""
    from dataclasses import asdict

    from alm.tokenizers.vocabulary import best, has_smaller_sizes, size_options

    everything, cost = [text for listed in texts.values() for text in listed], _cost_of(shape)
    usable = {name: one.tokenizer for name, one in opened.items() if isinstance(one, Ours)}
    found = [(name, each) for name, one in usable.items() for each in size_options(one, everything, cost)]
    left_out = [f"`{name}` is left out: `alm` cannot train with it." for name in opened if name not in usable]
    left_out += [
        f"Smaller vocabularies of `{name}` are left out: they would need another training."
        for name, one in usable.items()
        if not has_smaller_sizes(one)
    ]
    advised = best([option for _, option in found]) if len(found) > 1 else None
    values = {
        "vocab_size": None if advised is None else advised.vocab_size,
        "choices": [{"tokenizer": name, **asdict(option)} for name, option in found],
        "left_out": left_out,
    }
    lines = _aligned(list(_cost_rows(found, advised, context=shape.max_position_embeddings, is_named=len(opened) > 1)))
    return values, [*lines, "", *left_out, *_why(model, [option for _, option in found], advised)]


def _cost_of(shape: ModelConfig) -> Callable[[int], Cost]:
    from alm.model.count import count
    from alm.tokenizers.vocabulary import Cost

    def cost(vocab_size: int) -> Cost:
        counted = count(shape.model_copy(update={"vocab_size": vocab_size}))
        flops = counted.training_flops_per_token(shape.max_position_embeddings)
        return Cost(counted.total, counted.embedding + counted.head, flops)

    return cost


def _cost_rows(
    found: Sequence[tuple[str, SizeOption]], advised: SizeOption | None, *, context: int, is_named: bool
) -> Iterator[list[str]]:
    yield ["vocabulary", "parameters", "embedding", "bytes/token", "context", "MFLOP/byte", "rare ids occur"]
    for name, option in found:
        label = f"{option.vocab_size:,}{' <' if option is advised else ''}"
        yield [
            f"{name}  {label}" if is_named else label,
            f"{option.parameters / 1e6:.1f}M",
            f"{option.embedding_share:.0%}",
            f"{option.bytes_per_token:.2f}",
            ui.size(option.bytes_per_token * context),
            f"{option.flops_per_byte / 1e6:.1f}",
            f"{option.rare:,}x",
        ]


def _why(model: str, found: Sequence[SizeOption], advised: SizeOption | None) -> list[str]:
    from alm.tokenizers.vocabulary import OFTEN_ENOUGH

    if advised is None:
        return ["No advice: there is only one vocabulary to choose from."]
    why = (
        f"For `{model}`, {advised.vocab_size:,} tokens: a larger vocabulary shortens this text by less than its output "
        f"layer adds to each token"
    )
    if not max(found, key=lambda one: one.vocab_size).is_seen_enough:
        why += f", or leaves a tenth of its tokens fewer than {OFTEN_ENOUGH} times in it"
    return [f"{why}.", "The reasoning is in docs/vocabulary.md."]
