"""Kind `huggingface`: a dataset on the Hugging Face hub, streamed at the commit its revision is when opened."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import tempfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from alm import hub
from alm.config.base import did_you_mean
from alm.corpus.config import SourceConfig
from alm.corpus.document import Document, Dropped, Item, Source
from alm.errors import AlmError, ConfigError, InputError
from alm.events import Listener, Warned, ignore

if TYPE_CHECKING:
    import pyarrow
    from datasets import DatasetBuilder, Features, IterableDataset

_BATCH_ROWS = 1000
_PARQUET_BRANCH = "refs/convert/parquet"


class Config(SourceConfig):
    """A dataset on the Hugging Face hub, and which of its text to read."""

    kind: Literal["huggingface"] = Field(default="huggingface", description="Read a dataset on the Hugging Face hub.")
    dataset: str = Field(description="The dataset, as `namespace/name`.")
    name: str | None = Field(default=None, description="Configuration of the dataset; absent means its only one.")
    split: str = Field(default="train", description="Split of the dataset.")
    revision: str = Field(default="main", description="Branch, tag or commit; recorded as the commit it is.")
    field: str = Field(default="text", description="Name of the field that holds the text.")
    licence: str | None = Field(default=None, description="Licence of the text; absent means what the dataset states.")

    @field_validator("dataset")
    @classmethod
    def _dataset_has_namespace(cls, dataset: str) -> str:
        try:
            return hub.checked_id(dataset)
        except ConfigError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None


def inputs(config: Config) -> list[Path]:
    """No files of this machine."""
    return []


def open_source(config: Config, *, on_event: Listener = ignore, patience: hub.Patience | None = None) -> Source:
    """The rows of the split in their order. What can be wrong with `config` is found here, before the first row.

    `on_event` hears of every fault that is being waited out. Closing `items` ends the download.
    """
    patience = dataclasses.replace(patience or hub.Patience(), tell=lambda line: on_event(Warned(line)))
    pinned = hub.pin(config.dataset, revision=config.revision, patience=patience)
    dataset = _open(config, pinned)
    items = _items(_batches(dataset, config, pinned, patience), f"{config.dataset}@{pinned.sha[:7]}/{config.split}")
    return Source(items, revision=pinned.sha, licence=config.licence or pinned.licence)


def _items(batches: Generator[list[Any], None, None], place: str) -> Generator[Item, None, None]:
    with contextlib.closing(batches):
        for row, value in enumerate(itertools.chain.from_iterable(batches)):
            if isinstance(value, str):
                yield Document(value, origin=f"{place}#{row}")
            else:
                yield Dropped("not_text", 0, documents=1)


# ---- opening ------------------------------------------------------------------------------------


def _open(config: Config, pinned: hub.Pinned) -> IterableDataset:
    """The split, in Arrow batches, of the text's column alone where the format can leave out the others."""
    _calm_datasets(config)
    with _opening_explained(config):
        builder = _builder(config, pinned)
        splits = builder.as_streaming_dataset()
        if config.split not in splits:
            raise _unknown(config, "split", config.split, list(splits))
        _check_field(config, splits[config.split].features)
        if hasattr(builder.config, "columns"):  # Parquet
            builder.config.columns = [config.field]
            splits = builder.as_streaming_dataset()
        return splits[config.split].with_format("arrow")


def _calm_datasets(config: Config) -> None:
    """Keep `datasets` from printing, and from waiting by itself: `alm.hub` does that for every request."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        raise hub.offline(config.dataset)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    datasets.config.STREAMING_READ_RETRY_INTERVAL = datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 0


def _builder(config: Config, pinned: hub.Pinned) -> DatasetBuilder:
    from datasets import load_dataset_builder

    # hf:// because a folder of that name would be read instead, and an empty cache because what is there would be
    # read when the hub fails, whatever its revision.
    with tempfile.TemporaryDirectory() as empty:
        try:
            builder = load_dataset_builder(
                f"hf://datasets/{config.dataset}",
                name=None if config.revision == _PARQUET_BRANCH else config.name,
                data_dir=config.name if config.revision == _PARQUET_BRANCH else None,
                revision=pinned.sha,
                cache_dir=empty,
            )
        except ValueError as error:
            raise _bad_name(config, pinned, error) from error
    assert builder.hash == pinned.sha, builder.hash
    return builder


def _bad_name(config: Config, pinned: hub.Pinned, error: ValueError) -> AlmError:
    from datasets import get_dataset_config_names

    known = get_dataset_config_names(f"hf://datasets/{config.dataset}", revision=pinned.sha)
    if config.name is None and len(known) > 1:
        return ConfigError(
            f"`{config.dataset}` has several configurations: {', '.join(known)}",
            hint=f"name one: `--set sources.<name>.name={known[0]}`",
        )
    if config.name is not None and config.name not in known:
        return _unknown(config, "configuration", config.name, known, key="name")
    return _unreadable(config, error)


def _unknown(config: Config, what: str, given: str, known: Sequence[str], *, key: str | None = None) -> ConfigError:
    return ConfigError(
        f"`{config.dataset}` has no {what} `{given}`{did_you_mean(given, known)} (there are: {', '.join(known)})",
        hint=f"name another: `--set sources.<name>.{key or what}={known[0]}`" if known else None,
    )


def _check_field(config: Config, features: Features | None) -> None:
    """Refuse a field that is not there or can never hold text. Some formats say only with their first batch."""
    if features is None:
        return
    if config.field not in features:
        raise _unknown(config, "field", config.field, list(features))
    if not _may_hold_text(features[config.field]):
        texts = [name for name, feature in features.items() if _may_hold_text(feature)]
        raise ConfigError(
            f"field `{config.field}` of `{config.dataset}` holds {_type_name(features[config.field])}, not text "
            f"(fields with text: {', '.join(texts) or 'none'})",
            hint=f"name another: `--set sources.<name>.field={texts[0]}`" if texts else None,
        )


def _may_hold_text(feature: Any) -> bool:
    return _type_name(feature) in ("string", "large_string", "string_view", "null", "Json")


def _type_name(feature: Any) -> str:
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


# ---- reading ------------------------------------------------------------------------------------


def _batches(
    dataset: IterableDataset, config: Config, pinned: hub.Pinned, patience: hub.Patience
) -> Generator[list[Any], None, None]:
    """The field's values, file by file, so that a broken stream starts again at its file and not at the first."""
    for index in range(dataset.num_shards):
        file = dataset.shard(num_shards=dataset.num_shards, index=index)
        yield from _persistent(file, config, pinned, patience)


def _persistent(
    file: IterableDataset, config: Config, pinned: hub.Pinned, patience: hub.Patience
) -> Generator[list[Any], None, None]:
    """The values of one file, each once, however often its stream breaks; new values renew the patience."""
    faults = hub.stream_faults()  # while it can be asked: a stream may be closed as late as the end of the program
    done = failures = 0
    while True:
        try:
            with _damage_explained(config), contextlib.closing(_values(file, config)) as batches:
                for first, values in batches:
                    if fresh := values[max(done - first, 0) :]:
                        done, failures = first + len(values), 0
                        yield fresh
            return
        except faults as error:
            failures += 1
            _give_up_or_wait(error, failures, config, pinned, patience)


def _values(file: IterableDataset, config: Config) -> Generator[tuple[int, list[Any]], None, None]:
    """The field's values in batches, each with the row of the file that it starts at."""
    first = 0
    with contextlib.closing(file.iter(batch_size=_BATCH_ROWS)) as tables:
        for table in tables:
            if config.field not in table.column_names:
                raise _unknown(config, "field", config.field, table.column_names)
            values = _decoded(table.column(config.field))
            yield first, values
            first += len(values)


def _decoded(column: pyarrow.ChunkedArray) -> list[Any]:
    """The values of `column`. JSON whose rows are of several types comes as the source of each value."""
    values: list[Any] = column.to_pylist()
    if getattr(column.type, "extension_name", None) == "arrow.json":
        return [None if value is None else json.loads(value) for value in values]
    return values


def _give_up_or_wait(
    error: Exception, failures: int, config: Config, pinned: hub.Pinned, patience: hub.Patience
) -> None:
    reason = f"the stream of `{config.dataset}` broke: {_first_line(error)}"
    if failures >= patience.attempts:
        raise AlmError(f"{reason} ({failures} times in a row)", hint="run the same command again later") from error
    hub.pin(config.dataset, revision=pinned.sha, patience=patience)  # says so when we are no longer allowed to read it
    patience.pause(failures, reason=reason)


# ---- errors -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opening_explained(config: Config) -> Iterator[None]:
    with hub.explained(config.dataset, revision=config.revision), _damage_explained(config):
        try:
            yield
        except RuntimeError as error:
            if "scripts are no longer supported" not in str(error):
                raise
            raise InputError(
                f"`{config.dataset}` is a program (a dataset script), and `datasets` no longer runs those",
                hint=f"the hub keeps a copy of most as data: `--set sources.<name>.revision={_PARQUET_BRANCH}`",
            ) from error
        except FileNotFoundError as error:
            raise InputError(
                f"`{config.dataset}` holds no data files that can be read: {_first_line(error)}",
                hint=f"run `hf datasets list {config.dataset}` to see its files",
            ) from error


@contextlib.contextmanager
def _damage_explained(config: Config) -> Iterator[None]:
    import pyarrow

    # Named here, for the same reason as the faults of `_persistent`.
    damage = (ValueError, EOFError, zlib.error, pyarrow.ArrowException)
    try:
        yield
    except damage as error:
        raise _unreadable(config, error) from error


def _unreadable(config: Config, error: Exception) -> InputError:
    return InputError(
        f"a file of `{config.dataset}` cannot be read: {_first_line(error)}",
        hint="report it to the owners of the dataset, or read an older commit: `--set sources.<name>.revision=...`",
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
