"""Kind `text`: files and folders of plain text, .gz and .zst unpacked by name."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from alm.corpus.config import SourceConfig
from alm.corpus.document import Document, Dropped, Item, Items, Part, Survey, utf8_bytes
from alm.corpus.paths import Paths, expand
from alm.errors import InputError
from alm.events import Listener, ignore
from alm.files import not_utf8, open_binary

SUFFIXES = frozenset({".txt", ".text", ".md", ".rst"})


class Config(SourceConfig):
    """Files, folders or globs, and what in them is a document."""

    kind: Literal["text"] = "text"
    paths: Paths = Field(description="Files, folders or globs; a folder means the text files below it.")
    document: Literal["file", "block", "line"] = Field(
        default="file", description="What a document is: a whole file, a block between blank lines, or a line."
    )
    encoding: str = Field(default="utf-8", description="Encoding of the files, by its Python name.")
    licence: str | None = Field(default=None, description="Licence of the text, recorded with the corpus.")


def inputs(config: Config) -> list[Path]:
    """The files to read, sorted."""
    return expand(config.paths, suffixes=SUFFIXES)


def survey(config: Config, *, on_event: Listener = ignore) -> Survey:
    """Each file is a part."""
    parts = tuple(Part(path.as_posix(), path.stat().st_size) for path in inputs(config))
    return Survey(parts, licence=config.licence)


def read(config: Config, parts: Sequence[Part], *, revision: str | None = None, on_event: Listener = ignore) -> Items:
    """The documents of `parts`, in order."""
    for part in parts:
        yield from _items(Path(part.name), config)


def _items(path: Path, config: Config) -> Iterator[Item]:
    if config.document == "file":
        yield Document(_whole(path, config.encoding), origin=path.as_posix())
    else:
        yield from _pieces(path, config)


def _whole(path: Path, encoding: str) -> str:
    with open_binary(path) as file:
        return _decode(file.read(), path=path, encoding=encoding, offset=0)


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise InputError(
            f"`{encoding}` is no encoding that Python knows",
            hint="see https://docs.python.org/3/library/codecs.html#standard-encodings for the names",
        ) from error


def _decode(data: bytes, *, path: Path, encoding: str, offset: int) -> str:
    try:
        return data.decode(_known(encoding))
    except UnicodeDecodeError as error:
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
            raise not_utf8(path, offset=offset + error.start, byte=data[error.start]) from error
        raise InputError(f"`{path}` is not {encoding}: {error.reason} at offset {offset + error.start:,}") from error


def _pieces(path: Path, config: Config) -> Iterator[Item]:
    """Lines or blocks; the white space between them is counted as dropped."""
    with open_binary(path) as file:
        lines = io.TextIOWrapper(file, encoding=_known(config.encoding), newline="")
        try:
            yield from _lines(lines, path) if config.document == "line" else _blocks(lines, path)
        except UnicodeDecodeError as error:
            # The stream's own offset is that of its buffer: decode the whole file to say the true place.
            _whole(path, config.encoding)
            raise InputError(f"`{path}` is not {config.encoding}: {error.reason}") from error
        finally:
            lines.detach()


def _lines(lines: Iterator[str], path: Path) -> Iterator[Item]:
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        if text.strip():
            yield Document(text, origin=f"{path.as_posix()}#{number}")
            yield from _separator(line[len(text) :])
        else:
            yield from _separator(line)


def _blocks(lines: Iterator[str], path: Path) -> Iterator[Item]:
    block: list[str] = []
    start = 0
    for number, line in enumerate(lines, start=1):
        if line.strip():
            start = start if block else number
            block.append(line)
            continue
        yield from _block(block, path, start)
        yield from _separator(line)
        block = []
    yield from _block(block, path, start)


def _block(block: list[str], path: Path, start: int) -> Iterator[Item]:
    if block:
        joined = "".join(block)
        text = joined.rstrip("\r\n")
        yield Document(text, origin=f"{path.as_posix()}#{start}")
        yield from _separator(joined[len(text) :])


def _separator(text: str) -> Iterator[Item]:
    if text:
        yield Dropped("separator", utf8_bytes(text))
