"""Kind `files`: files and folders of text in any form, compressed or not."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import itertools
import json
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import BeforeValidator, Field, field_validator

from alm import kinds
from alm.artifacts import as_text
from alm.config import base
from alm.config.base import OfKind
from alm.corpus import adapters, rows
from alm.corpus.config import SourceConfig
from alm.corpus.document import Dropped, Item, Part, Survey, utf8_bytes
from alm.corpus.formats import Reading
from alm.corpus.formats._detect import by_suffix, format_of, module
from alm.corpus.formats._encoding import AUTO, EncodingError, is_known
from alm.corpus.paths import Listed, Paths, from_text, listing
from alm.corpus.read import is_text, shard_source
from alm.corpus.sources import PART_BYTES
from alm.corpus.sources._prose import what_else, what_within
from alm.errors import AlmError, ConfigError, InputError, quoted, shell
from alm.events import Listener, Noted, Warned, ignore
from alm.files import compression, suffix

_PROBLEMS_SHOWN = 20
_PROBLEM_SECONDS = 20.0

Patterns = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class Config(SourceConfig):
    """Files, folders or globs, and how to read documents from them."""

    kind: Literal["files"] = Field(default="files", description="Read local files and folders.")
    paths: Paths = Field(
        description="Files, folders or globs. A folder stands for the files below it that hold prose or source code."
    )
    format: Literal["auto", "text", "html", "jsonl", "json", "csv", "parquet"] = Field(
        default="auto", description="Format of the files; auto detects it for each file from its content and name."
    )
    document: Literal["auto", "file", "block", "line", "mark"] = Field(
        default="auto",
        description="Unit of a text that makes a document: the file, a block between blank lines, a line, or the "
        "text between lines `<|endoftext|>` (mark). auto: mark if there is such a line, else file.",
    )
    encoding: str = Field(
        default="auto",
        description="Encoding of files that are not UTF-8 and have no byte order mark, by its Python name; auto: none.",
    )
    field: str = Field(
        default="text", description="Field of a row that holds the text; dots lead into nested objects, as in `a.b`."
    )
    adapter: Annotated[base.Config, OfKind("alm.corpus.adapters", default="text")] = Field(
        default=cast(base.Config, "text"), validate_default=True, description="Adapter that turns rows into documents."
    )
    include: Patterns = Field(
        default=(),
        description="Patterns of names or paths to read from a folder; none reads all prose and source code.",
    )
    exclude: Patterns = Field(default=(), description="Patterns of names or paths to leave out of a folder.")
    licence: str | None = Field(default=None, description="Licence of the text, recorded with the corpus.")

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        if not is_known(encoding):
            raise ValueError(
                f"`{encoding}` is not a text encoding that Python knows; "
                "see https://docs.python.org/3/library/codecs.html#standard-encodings for the names"
            )
        return encoding


def inputs(config: Config) -> list[Path]:
    """Return the files to read, sorted. If bad input is skipped, files that cannot be opened are left out."""
    paths = [file.path for file in _found(config).files]
    return paths if config.on_bad_input == "stop" else [path for path in paths if _can_be_opened(path)]


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """Return the parts of all files, in the order of their paths. Report the files that were left out of folders.

    Raises `ConfigError` if the first row of all files does not have the field.
    """
    found = _found(config)
    _tell(found, config, on_event)
    _check_field(found, config)
    return Survey(tuple(part for file in found.files for part in _parts(file, config)), licence=config.licence)


def with_rows(config: Config) -> list[File]:
    """Return the files that have rows, sorted by path. Nothing is opened if their names say that none has."""
    if config.format == AUTO and not any(_may_have_rows(file.path) for file in listing(config.paths).files):
        return []
    return [file for file in _found(config).files if module(file.format).HAS_ROWS]


def stored_bytes(config: Config) -> int:
    """Return the bytes of all files of the source, as they are stored."""
    return sum(file.path.stat().st_size for file in _found(config).files)


def _may_have_rows(path: Path) -> bool:
    name = by_suffix().get(suffix(path))
    return name is None or bool(module(name).HAS_ROWS)


def first_rows(file: File, config: Config, *, most: int) -> list[rows.Row]:
    """Return the first rows of a file, with all their fields; bad rows among them are skipped."""
    reading = Reading(encoding=config.encoding, max_document_bytes=config.max_document_bytes, on_bad_input="skip")
    with contextlib.closing(module(file.format).read(file.path, (), reading)) as made:
        return [row for row in itertools.islice(made, most) if isinstance(row, rows.Row)]


def read(
    config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore
) -> Generator[Item, None, None]:
    """Yield the documents of `parts`, and `Dropped` items."""
    reading = _reading(config)
    for part in parts:
        seen = 0
        try:
            for item in _items(config, part, reading):
                if config.on_bad_input == "skip":
                    seen += item.bytes if isinstance(item, Dropped) else utf8_bytes(item.text)
                yield item
        except (InputError, OSError) as error:
            # Text before the damage is counted already. For a compressed file only its compressed size is known.
            dropped = Dropped(_reason(error), max(0, part.bytes - seen), documents=1, origin=part.name)
            explained = _explained(error, part.name)
            if config.on_bad_input == "stop":
                raise _with_others(rows.with_way_out(explained), config) from error
            yield rows.left_out(dropped, explained, on_bad_input="skip")
        except ConfigError as error:
            raise _with_exclusion(error, config) from error


def _items(config: Config, part: Part, reading: Reading) -> Iterator[Item]:
    path = from_text(part.name)
    name = format_of(path, asked=config.format, encoding=config.encoding, is_named=True)
    if name is None:
        raise _no_text(path)
    made = module(name).read(path, part.where, reading)
    if not module(name).HAS_ROWS:
        return cast("Iterator[Item]", made)
    return adapters.items(
        made,
        adapter=config.adapter,
        field=config.field,
        on_bad_input=config.on_bad_input,
        max_document_bytes=config.max_document_bytes,
        begins=not part.where or part.where[0] == 0,
    )


def _reading(config: Config, on_bad_input: rows.OnBadInput | None = None) -> Reading:
    adapter = kinds.module_of(config.adapter)
    return Reading(
        document=config.document,
        encoding=config.encoding,
        columns=adapter.columns(config.adapter, config.field),
        spans_rows=adapter.SPANS_ROWS,
        max_document_bytes=config.max_document_bytes,
        on_bad_input=on_bad_input or config.on_bad_input,
    )


# ---- finding ------------------------------------------------------------------------------------


class File(NamedTuple):
    """A file to read. `below` is its path relative to the folder that was given, or its name."""

    path: Path
    format: str
    below: str


class _Found(NamedTuple):
    """The files to read, and the numbers of other files: not text, or not prose, by suffix, and hidden ones."""

    files: list[File]
    left_out: Counter[str]
    not_prose: Counter[str]
    hidden: int


def _found(config: Config) -> _Found:
    listed = listing(config.paths)
    files: list[File] = []
    left_out: Counter[str] = Counter()
    not_prose: Counter[str] = Counter()
    refused: list[InputError] = []
    asked = {suffix(Path(given)) for given in config.paths if not Path(given).exists()}  # globs
    for file in listed.files:
        is_named = file.found == "named"
        if not is_named and not (_is_chosen(file, config) and is_text(file.path)):
            continue
        is_asked = is_named or config.include or config.format != AUTO or suffix(file.path) in asked
        if not is_asked and (kind := what_else(file.path)):
            not_prose[kind] += 1
            continue
        name = format_of(file.path, asked=config.format, encoding=config.encoding, is_named=is_named)
        is_read = is_named or config.include or config.format != AUTO or name in (None, "parquet", "html")
        if not is_read and not what_else(file.path) and (kind := what_within(file.path)):
            not_prose[kind] += 1
        elif name is not None:
            files.append(File(file.path, name, file.below))
        elif is_named:
            refused.append(_no_text(file.path))
        else:
            left_out[suffix(file.path) or "without suffix"] += 1
    if refused:
        raise _joined(refused)
    if not files:
        given = "`, `".join(config.paths)
        what = "holds text" if config.format == AUTO else f"is {config.format}"
        hint = f"run `{shell('ls', '-R', config.paths[0])}` to see what is there"
        if not_prose:
            what, hint = f"holds prose: {_listed(not_prose)}", "read them with `--set sources.<name>.include='*'`"
        raise InputError(f"no file in `{given}` {what}", hint=hint)
    _refuse_equal_names(files)
    return _Found(files, left_out, not_prose, listed.hidden)


def _listed(numbers: Counter[str]) -> str:
    return ", ".join(f"{number} {end}" for end, number in sorted(numbers.items()))


def _refuse_equal_names(files: Sequence[File]) -> None:
    """Refuse two files whose names differ only in the spelling of a non-UTF-8 byte: their origins would be equal."""
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(as_text(file.path), file.path)
        if other != file.path:
            raise InputError(
                f"`{as_text(file.path)}` is the name of two files: one has a byte that is not UTF-8, the other a "
                "backslash there",
                hint=f"rename one: `{shell('mv', '-n', other, f'{as_text(other)}.renamed')}`",
            )


def _is_chosen(file: Listed, config: Config) -> bool:
    return (not config.include or _is_like(file, config.include)) and not _is_like(file, config.exclude)


def _is_like(file: Listed, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, each) for each in patterns for name in (file.below, file.path.name))


def _tell(found: _Found, config: Config, on_event: Listener) -> None:
    other = "not text" if config.format == AUTO else f"not {config.format}"
    to_read = "to read them, name them as paths, or set `include` of the source: `include: '*'`"
    for numbers, what, hint in ((found.left_out, other, None), (found.not_prose, "not prose", to_read)):
        if number := numbers.total():
            is_are = "is" if number == 1 else "are"
            said = f"{number:,} of the files found {is_are} {what} and {is_are} left out: {_listed(numbers)}"
            on_event(Warned(said, hint))
    if sources := sorted({source for file in found.files if (source := shard_source(file.path))}):
        on_event(Warned(f"`{'`, `'.join(sources)}` is clean text already: this preparation holds out text of it again"))
    if found.hidden:
        on_event(Noted(f"{found.hidden:,} hidden files and folders are left out"))


def _parts(file: File, config: Config) -> list[Part]:
    """Return the parts of a file. If bad input is skipped, a file that cannot be opened is one part."""
    try:
        parts: list[Part] = module(file.format).parts(file.path, _reading(config), part_bytes=PART_BYTES)
    except (InputError, OSError) as error:
        if config.on_bad_input == "stop":
            raise _with_others(rows.with_way_out(_explained(error, as_text(file.path))), config) from error
        return [Part(as_text(file.path), _size(file.path))]
    return parts


def _check_field(found: _Found, config: Config) -> None:
    """Raise `ConfigError` if the first row of all files does not have the field."""
    reading = _reading(config, "skip")
    for file in found.files:
        if module(file.format).HAS_ROWS:
            made = module(file.format).read(file.path, (), reading)
            with contextlib.closing(made), contextlib.suppress(InputError, OSError):
                try:
                    if _has_field(made, config):
                        return
                except ConfigError as error:
                    raise _with_exclusion(error, config) from error


def _has_field(made: Iterator[rows.Row | Dropped], config: Config) -> bool:
    """Raise `ConfigError` if the first of the rows does not have the field. Return False if there is none."""
    longest = config.max_document_bytes
    return adapters.check(made, adapter=config.adapter, field=config.field, max_document_bytes=longest)


def _can_be_opened(path: Path) -> bool:
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# ---- what is wrong ------------------------------------------------------------------------------


def _no_text(path: Path) -> InputError:
    return InputError(
        f"`{path}` is not text, nor in another known format",
        hint=f"run `{shell('file', path)}` to see its type; text in an old encoding needs "
        "`--set sources.<name>.encoding=...`",
    )


def _with_others(error: InputError, config: Config) -> InputError:
    """Return `error` with the problems of all files of the source, so that they can be repaired in one go."""
    problems = [error]
    known = {error.message}
    until = time.monotonic() + _PROBLEM_SECONDS
    skipping = config.model_copy(update={"on_bad_input": "skip"})
    with contextlib.suppress(AlmError, OSError):
        parts = [Part(as_text(file.path), _size(file.path)) for file in _found(config).files]
        for item in read(skipping, parts):
            if isinstance(item, Dropped) and item.problem and item.problem not in known:
                known.add(item.problem)
                problems.append(InputError(item.problem))
            if len(problems) > _PROBLEMS_SHOWN or time.monotonic() > until:
                break
    return _joined(problems)


def _joined(problems: Sequence[InputError]) -> InputError:
    """Return one error for all `problems`, with the hint of the first."""
    said = [problem.message for problem in problems[:_PROBLEMS_SHOWN]]
    more = ["and more"] if len(problems) > _PROBLEMS_SHOWN else []
    return InputError("\n  ".join([*said, *more]), hint=problems[0].hint)


def _with_exclusion(error: ConfigError, config: Config) -> ConfigError:
    """Return `error` with a hint that leaves out all files of folders whose rows do not have the field."""
    fit: set[str] = set()
    unfit: list[tuple[str, str]] = []
    for file in _found(config).files:
        end = "".join(file.path.suffixes[-2 if compression(file.path) else -1 :])
        try:
            if module(file.format).HAS_ROWS:
                _has_field(module(file.format).read(file.path, (), _reading(config, "skip")), config)
            fit.add(end)
        except ConfigError:
            if file.path.as_posix() in config.paths:  # named: patterns do not leave it out
                return error
            unfit.append((file.below, end))
        except (InputError, OSError):
            fit.add(end)
    if not fit:
        return error
    patterns = sorted({f"*{end}" if end and end not in fit else glob.escape(name) for name, end in unfit})
    value = json.dumps(patterns, ensure_ascii=False)
    flag = f"`--set sources.<name>.exclude={quoted(value)}`"
    way = f"add {value} to its `exclude`" if config.exclude else flag
    return ConfigError(error.message, hint=f"{error.hint}; or leave out files without it: {way}")


def _explained(error: InputError | OSError, name: str) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"`{name}` cannot be read: {error.strerror or error}", hint=f"run `{shell('ls', '-l', name)}`")


def _reason(error: InputError | OSError) -> str:
    if isinstance(error, EncodingError):
        return "bad_utf8"
    cause = error if isinstance(error, OSError) else error.__cause__
    return "unreadable" if isinstance(cause, OSError) and cause.errno is not None else "damaged"
