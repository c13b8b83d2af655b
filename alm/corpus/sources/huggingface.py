"""Kind `huggingface`: a dataset on the Hugging Face hub, streamed at the commit of its revision."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import random
import tempfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from alm import hub, kinds, shown
from alm.config import base
from alm.config.base import OfKind, did_you_mean
from alm.corpus.adapters import items
from alm.corpus.config import SourceConfig
from alm.corpus.document import Dropped, Items, Part, Survey
from alm.corpus.formats import present
from alm.corpus.rows import Row
from alm.corpus.sources import PART_BYTES
from alm.errors import AlmError, ConfigError, InputError, quoted
from alm.events import Listener, Warned, ignore
from alm.files import parse_row

if TYPE_CHECKING:
    import pyarrow
    from datasets import DatasetBuilder, Features, IterableDataset

_BATCH_ROWS = 1000
_PARQUET_BRANCH = "refs/convert/parquet"


class Config(SourceConfig):
    """A dataset on the Hugging Face hub, and the part of it to read."""

    kind: Literal["huggingface"] = Field(default="huggingface", description="Read a dataset on the Hugging Face hub.")
    dataset: str = Field(description="The dataset, as `namespace/name`.")
    name: str | None = Field(default=None, description="Configuration of the dataset; absent: its only one.")
    split: str = Field(default="train", description="Split of the dataset.")
    revision: str = Field(default="main", description="Branch, tag or commit; recorded as a commit.")
    field: str = Field(default="text", description="Name of the field that holds the text.")
    adapter: Annotated[base.Config, OfKind("alm.corpus.adapters")] = Field(
        default="text", validate_default=True, description="Adapter that turns rows into documents."
    )
    seed: int | None = Field(
        default=1337,
        ge=0,
        lt=base.SEEDS,
        description="Seed of the order in which files are read; null keeps the dataset's order.",
    )
    licence: str | None = Field(default=None, description="Licence of the text; absent: as the dataset states.")

    @field_validator("dataset")
    @classmethod
    def _dataset_has_namespace(cls, dataset: str) -> str:
        try:
            return hub.checked_id(dataset)
        except ConfigError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None


def inputs(config: Config) -> list[Path]:
    """Return no files: the source reads no local ones."""
    return []


def survey(config: Config, *, on_event: Listener = ignore, policy: hub.RetryPolicy | None = None) -> Survey:
    """List the files of the split at the current commit of its revision. Errors in `config` are raised here.

    Large Parquet files are several parts. The order is shuffled, always the same for a seed, so that a budget is not
    spent only on the oldest files. `on_event` receives a warning for every fault before it is retried.
    """
    policy = _reporting(policy, on_event)
    with _other_text_named():
        pinned = hub.pin(config.dataset, revision=config.revision, policy=policy)
        _opened.cache_clear()  # the hub may be another one by now
        opened = _opened(config, pinned.sha)
    may_be_cut = opened.is_parquet and not kinds.module_of(config.adapter).SPANS_ROWS
    parts = []
    for index, (name, size) in enumerate(zip(opened.files, _sizes(config, pinned, opened.files), strict=True)):
        pieces = max(1, -(-size // PART_BYTES)) if may_be_cut else 1
        place = f"{config.dataset}@{pinned.sha[:7]}/{name}"
        parts += [Part(place, size // pieces, (index, piece, pieces)) for piece in range(pieces)]
    if config.seed is not None:
        random.Random(config.seed).shuffle(parts)
    return Survey(tuple(parts), revision=pinned.sha, licence=config.licence or pinned.licence)


def read(
    config: Config,
    parts: Sequence[Part],
    *,
    revision: str | None = None,
    on_event: Listener = ignore,
    policy: hub.RetryPolicy | None = None,
) -> Items:
    """Yield the rows of `parts` at the commit `revision`, in order. Closing the generator ends the download."""
    assert revision is not None, config.dataset
    policy = _reporting(policy, on_event)
    hub.connect(policy)
    pinned = hub.Pinned(config.dataset, sha=revision, licence=None)
    opened = _opened(config, revision)
    for part in parts:
        with contextlib.closing(_rows(opened, part, config, pinned, policy)) as rows:
            yield from items(
                rows,
                adapter=config.adapter,
                field=config.field,
                on_bad_input=config.on_bad_input,
                max_document_bytes=config.max_document_bytes,
            )


@contextlib.contextmanager
def _other_text_named() -> Iterator[None]:
    """Add text that needs no network to the hint of an error about a hub that cannot be reached."""
    try:
        yield
    except hub.UnreachableError as error:
        error.hint = (
            f"{error.hint}. Without the hub, prepare your own text with `alm corpus prepare my-texts/`, or built-in "
            "stories with `alm corpus prepare --src tales`"
        )
        raise


def _reporting(policy: hub.RetryPolicy | None, on_event: Listener) -> hub.RetryPolicy:
    return dataclasses.replace(policy or hub.RetryPolicy(), report=lambda line: on_event(Warned(line)))


# ---- opening ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Opened:
    """The split in Arrow batches, with only the needed columns if the format allows that."""

    dataset: IterableDataset
    files: tuple[str, ...]
    is_parquet: bool


@functools.lru_cache(maxsize=4)
def _opened(config: Config, sha: str) -> _Opened:
    """Open the split. That takes a dozen requests, so the result is cached for all parts that this process reads."""
    _calm_datasets(config)
    with _opening_explained(config):
        builder = _builder(config, sha)
        splits = builder.as_streaming_dataset()
        if config.split not in splits:
            raise _unknown(config, "split", config.split, list(splits))
        features = splits[config.split].features
        _check_field(config, features)
        columns = kinds.module_of(config.adapter).columns(config.adapter, config.field)
        is_parquet = hasattr(builder.config, "columns")
        if is_parquet and columns is not None:
            builder.config.columns = [name for name in columns if features is None or name in features]
            splits = builder.as_streaming_dataset()
        dataset = splits[config.split].with_format("arrow")
        return _Opened(dataset, _file_names(builder, config, dataset.num_shards), is_parquet)


def _file_names(builder: DatasetBuilder, config: Config, count: int) -> tuple[str, ...]:
    """Return the paths of the split's files in the repository, or numbers if a file holds several shards."""
    listed = (builder.config.data_files or {}).get(config.split, [])
    names = tuple(str(path).partition("@")[2].partition("/")[2] for path in listed)
    return names if len(names) == count and all(names) else tuple(f"{config.split}-{n}" for n in range(count))


def _sizes(config: Config, pinned: hub.Pinned, names: Sequence[str]) -> list[int]:
    """Return the bytes of each file, 0 if the hub does not report them."""
    from huggingface_hub import HfApi

    found: dict[str, int] = {}
    with hub.wrap_hub_errors(config.dataset, revision=config.revision):
        for folder in sorted({name.rpartition("/")[0] for name in names if "/" in name or "." in name}):
            listed = HfApi().list_repo_tree(config.dataset, folder or None, revision=pinned.sha, repo_type="dataset")
            found.update((entry.path, getattr(entry, "size", 0)) for entry in listed)
    return [found.get(name, 0) for name in names]


def _calm_datasets(config: Config) -> None:
    """Keep `datasets` from printing and retrying: `alm.hub` retries every request."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        raise hub.offline(config.dataset)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    datasets.config.STREAMING_READ_RETRY_INTERVAL = datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 0


def _builder(config: Config, sha: str) -> DatasetBuilder:
    from datasets import load_dataset_builder

    # hf://, as otherwise a local folder of that name would be read. An empty cache, as otherwise cached data of any
    # revision would be read when the hub fails.
    with tempfile.TemporaryDirectory() as empty:
        try:
            builder = load_dataset_builder(
                f"hf://datasets/{config.dataset}",
                name=None if config.revision == _PARQUET_BRANCH else config.name,
                data_dir=config.name if config.revision == _PARQUET_BRANCH else None,
                revision=sha,
                cache_dir=empty,
            )
        except ValueError as error:
            raise _bad_name(config, sha, error) from error
    assert builder.hash == sha, builder.hash
    return builder


def _bad_name(config: Config, sha: str, error: ValueError) -> AlmError:
    from datasets import get_dataset_config_names

    known = get_dataset_config_names(f"hf://datasets/{config.dataset}", revision=sha)
    if config.name is None and len(known) > 1:
        return ConfigError(
            f"`{config.dataset}` has several configurations: {', '.join(known)}",
            hint=f"name one: `--set sources.<name>.name={quoted(known[0])}`",
        )
    if config.name is not None and config.name not in known:
        return _unknown(config, "configuration", config.name, known, key="name")
    return _unreadable(config, error)


def _unknown(config: Config, what: str, given: str, known: Sequence[str], *, key: str | None = None) -> ConfigError:
    return ConfigError(
        f"`{config.dataset}` has no {what} `{given}`{did_you_mean(given, known)} (there are: {', '.join(known)})",
        hint=f"name another: `--set sources.<name>.{key or what}={quoted(known[0])}`" if known else None,
    )


def _check_field(config: Config, features: Features | None) -> None:
    """Refuse a field that is missing or can never hold text. Some formats list their fields only in the first batch."""
    if features is None or config.adapter.kind != "text":  # type: ignore[attr-defined]  # kinds have it
        return
    if config.field not in features:
        raise _unknown(config, "field", config.field, list(features))
    if not _may_hold_text(features[config.field]):
        texts = [name for name, feature in features.items() if _may_hold_text(feature)]
        raise ConfigError(
            f"field `{config.field}` of `{config.dataset}` holds {_type_name(features[config.field])}, not text "
            f"(fields with text: {', '.join(texts) or 'none'})",
            hint=f"name another: `--set sources.<name>.field={quoted(texts[0])}`" if texts else None,
        )


def _may_hold_text(feature: Any) -> bool:
    return _type_name(feature) in ("string", "large_string", "string_view", "null", "Json")


def _type_name(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


# ---- reading ------------------------------------------------------------------------------------


def _rows(
    opened: _Opened, part: Part, config: Config, pinned: hub.Pinned, policy: hub.RetryPolicy
) -> Generator[Row | Dropped, None, None]:
    """Yield the rows of a part, each with its place in the file or in the part's row groups."""
    index, piece, pieces = part.where
    place = part.name if pieces == 1 else f"{part.name}#{piece}"
    row = 0
    for stream in _streams(opened, index, piece, pieces):
        with contextlib.closing(_persistent(stream, config, pinned, policy)) as batches:
            for values in itertools.chain.from_iterable(batches):
                yield Row(values, f"{place}#{row}")
                row += 1


def _streams(opened: _Opened, index: int, piece: int, pieces: int) -> Iterator[IterableDataset]:
    """Yield the streams of a part: a file, or its row groups. A broken stream restarts from its beginning."""
    file = opened.dataset.shard(num_shards=opened.dataset.num_shards, index=index)
    if pieces == 1:
        yield file
        return
    groups = file.reshard()
    count = groups.num_shards
    for group in range(count * piece // pieces, count * (piece + 1) // pieces):
        yield groups.shard(num_shards=count, index=group)


def _persistent(
    file: IterableDataset, config: Config, pinned: hub.Pinned, policy: hub.RetryPolicy
) -> Generator[list[dict[str, Any]], None, None]:
    """Yield the rows of one stream, each once, however often it breaks. New rows reset the count of failures."""
    faults = hub.stream_faults()  # import now: the generator may be closed at interpreter exit, when imports fail
    needed = kinds.module_of(config.adapter).columns(config.adapter, config.field)
    done = failures = 0
    while True:
        try:
            with _damage_explained(config), contextlib.closing(_batches(file, needed)) as batches:
                for first, rows in batches:
                    if fresh := rows[max(done - first, 0) :]:
                        done, failures = first + len(rows), 0
                        yield fresh
            return
        except faults as error:
            failures += 1
            _give_up_or_wait(error, failures, config, pinned, policy)


def _batches(
    file: IterableDataset, needed: tuple[str, ...] | None
) -> Generator[tuple[int, list[dict[str, Any]]], None, None]:
    """Yield batches of rows, with the fields that are `needed` (None: all), each with the number of its first row."""
    from alm.corpus.formats._arrow import may_hold_text, plain

    first = 0
    with contextlib.closing(file.iter(batch_size=_BATCH_ROWS)) as tables:
        for table in tables:
            there = table.column_names if needed is None else present(needed, table.column_names)
            wanted = there or [field.name for field in table.schema if may_hold_text(field.type)]
            names = there or table.column_names  # all, so that an error can list them
            table = plain(table.select(wanted))
            columns = [_decoded(table.column(name)) if name in wanted else [None] * table.num_rows for name in names]
            rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
            yield first, rows
            first += len(rows)


def _decoded(column: pyarrow.ChunkedArray) -> list[Any]:
    """Return the values of `column`. A JSON column with rows of several types arrives as text, and is parsed."""
    values: list[Any] = column.to_pylist()
    if getattr(column.type, "extension_name", None) == "arrow.json":
        return [None if value is None else parse_row(value) for value in values]
    return values


def _give_up_or_wait(
    error: Exception, failures: int, config: Config, pinned: hub.Pinned, policy: hub.RetryPolicy
) -> None:
    reason = f"the stream of `{config.dataset}` broke: {shown.reason(error)}"
    if failures >= policy.attempts:
        raise AlmError(f"{reason} ({failures} times in a row)", hint="run the same command again later") from error
    hub.pin(config.dataset, revision=pinned.sha, policy=policy)  # raises if we may no longer read it
    policy.pause(failures, reason=reason)


# ---- errors -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opening_explained(config: Config) -> Iterator[None]:
    with hub.wrap_hub_errors(config.dataset, revision=config.revision), _damage_explained(config):
        try:
            yield
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            raise InputError(
                f"`{config.dataset}` is a program (a dataset script), and `datasets` no longer runs those",
                hint=f"the hub has most of them as data too: `--set sources.<name>.revision={_PARQUET_BRANCH}`",
            ) from error
        except FileNotFoundError as error:
            raise InputError(
                f"`{config.dataset}` holds no data files that can be read: {shown.reason(error)}",
                hint=f"run `hf datasets list {quoted(config.dataset)}` to see its files",
            ) from error


@contextlib.contextmanager
def _damage_explained(config: Config) -> Iterator[None]:
    import pyarrow

    # Import here, for the same reason as in `_persistent`.
    damage = (ValueError, EOFError, zlib.error, pyarrow.ArrowException)
    try:
        yield
    except damage as error:
        raise _unreadable(config, error) from error


def _unreadable(config: Config, error: Exception) -> InputError:
    return InputError(
        f"a file of `{config.dataset}` cannot be read: {shown.reason(error)}",
        hint="report it to the dataset's owners, or read an older commit: `--set sources.<name>.revision=...`",
    )
