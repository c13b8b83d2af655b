"""Kind `text`: plain text and source code; a document is a file, a block, a line, or the text between marks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alm.artifacts import as_text
from alm.corpus.document import Document, Dropped, Part
from alm.corpus.formats import Reading, whole
from alm.corpus.formats._encoding import bad_utf8, open_utf8
from alm.corpus.formats._lines import LongLine, excerpt, line_parts, lines
from alm.corpus.formats._pieces import Cutter, has_marks
from alm.corpus.records import unescape
from alm.corpus.rows import left_out

PROSE = frozenset({".txt", ".text", ".md", ".markdown", ".rst", ".org", ".adoc", ".tex", ".log", ".srt", ".vtt"})
CODE = frozenset(
    {".py", ".pyi", ".ipy", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".css", ".scss", ".vue", ".svelte"}
    | {".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".cu", ".cuh", ".m", ".mm", ".rs", ".go", ".zig", ".d"}
    | {".java", ".kt", ".kts", ".scala", ".groovy", ".gradle", ".cs", ".fs", ".vb", ".swift", ".dart"}
    | {".rb", ".php", ".pl", ".pm", ".lua", ".r", ".jl", ".hs", ".ml", ".mli", ".ex", ".exs", ".erl", ".clj", ".el"}
    | {".lisp", ".scm", ".rkt", ".nim", ".f90", ".f", ".pas", ".asm", ".s", ".v", ".sv", ".vhd", ".lean", ".sol"}
    | {".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".cmd", ".sql", ".graphql", ".proto", ".thrift"}
    | {".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".properties", ".env", ".xml", ".xsl", ".svg"}
    | {".mk", ".cmake", ".dockerfile", ".tf", ".nix", ".diff", ".patch", ".bib", ".cls", ".sty"}
)
SUFFIXES = PROSE | CODE
HAS_ROWS = False


def fits(head: bytes) -> bool | None:
    """Return None: no beginning of a file shows that it is plain text."""
    return None


def parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """Return pieces that end with a line if a line is a document, the complete file otherwise."""
    return line_parts(path, reading, part_bytes=part_bytes) if reading.document == "line" else whole(path)


def read(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Document | Dropped]:
    """Yield the documents, and the line ends and marks between them, which are dropped as `separator`.

    A file or record that is too long for one document becomes several documents, cut between lines.
    """
    if reading.document == "line":
        yield from _lines(path, where, reading)
    elif reading.document == "block":
        yield from _blocks(path, reading)
    else:
        yield from _records(path, reading)


def _records(path: Path, reading: Reading) -> Iterator[Document | Dropped]:
    name = as_text(path)
    with open_utf8(path, reading.encoding) as (file, start):
        cutter = Cutter(file, longest=reading.max_document_bytes, offset=start)
        is_marked = reading.document == "mark" or (reading.document == "auto" and _is_marked(path, cutter, reading))
        for piece in cutter.pieces(is_marked=is_marked):
            origin = f"{name}#{piece.record}" if is_marked else name
            origin = f"{origin}#part-{piece.number}" if piece.number > 1 else origin
            if isinstance(piece.data, LongLine):
                yield piece.data.dropped(origin)
            elif not is_marked:
                yield _document(piece.data, origin, path=path, offset=piece.offset, reading=reading)
            elif piece.data.strip():
                item = _document(piece.data, origin, path=path, offset=piece.offset, reading=reading)
                yield Document(unescape(item.text), origin) if isinstance(item, Document) else item
            else:
                yield from _separator(len(piece.data))
            yield from _separator(piece.separator)


def _is_marked(path: Path, cutter: Cutter, reading: Reading) -> bool:
    """Whether the text contains a mark; a text that is too long for one document is read once more to check."""
    if (known := cutter.has_marks()) is not None:
        return known
    with open_utf8(path, reading.encoding) as (file, _):
        return has_marks(file)


def _lines(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Document | Dropped]:
    start, stop, first = where or (0, None, 1)
    with open_utf8(path, reading.encoding, start=start) as (file, offset):
        size = None if stop is None else stop - offset
        for number, line in enumerate(lines(file, longest=reading.max_document_bytes, size=size), start=first):
            if isinstance(line, LongLine):
                yield line.dropped(f"{as_text(path)}#{number}")
                offset += line.size
                continue
            text = line.rstrip(b"\r\n")
            if text and not text.isspace():
                yield _document(text, f"{as_text(path)}#{number}", path=path, offset=offset, reading=reading)
                yield from _separator(len(line) - len(text))
            else:
                yield from _separator(len(line))
            offset += len(line)


def _blocks(path: Path, reading: Reading) -> Iterator[Document | Dropped]:
    """Yield the blocks between blank lines. A block ends early if the next line would make it too long."""
    name, longest = as_text(path), reading.max_document_bytes
    block: list[bytes] = []
    size = first = blank = 0
    with open_utf8(path, reading.encoding) as (file, offset):
        for number, line in enumerate(lines(file, longest=longest), start=1):
            is_text = not isinstance(line, LongLine) and not line.isspace()
            if block and (not is_text or size + len(line) > longest):
                yield from _block(block, f"{name}#{first}", path=path, offset=offset - size, reading=reading)
                block, size = [], 0
            if isinstance(line, LongLine):
                yield line.dropped(f"{name}#{number}")
                offset += line.size
                continue
            if is_text:
                yield from _separator(blank)
                first = first if block else number
                block.append(line)
                size += len(line)
            blank = 0 if is_text else blank + len(line)
            offset += len(line)
        yield from _block(block, f"{name}#{first}", path=path, offset=offset - size, reading=reading)
        yield from _separator(blank)


def _block(
    block: list[bytes], origin: str, *, path: Path, offset: int, reading: Reading
) -> Iterator[Document | Dropped]:
    if block:
        joined = b"".join(block)
        text = joined.rstrip(b"\r\n")
        yield _document(text, origin, path=path, offset=offset, reading=reading)
        yield from _separator(len(joined) - len(text))


def _document(data: bytes, origin: str, *, path: Path, offset: int, reading: Reading) -> Document | Dropped:
    try:
        return Document(data.decode("utf-8"), origin)
    except UnicodeDecodeError as error:
        dropped = Dropped("bad_utf8", len(data), documents=1, origin=origin, excerpt=excerpt(data))
        return left_out(dropped, bad_utf8(path, error, offset=offset), on_bad_input=reading.on_bad_input)


def _separator(size: int) -> Iterator[Dropped]:
    if size:
        yield Dropped("separator", size)
