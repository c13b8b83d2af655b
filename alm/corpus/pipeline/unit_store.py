"""The stages of a unit, and the files that they write: texts, data about each document, and markers.

All files are checked before use: a marker holds a hash of itself and of every file that it lists. A file that fails
the check counts as absent, and is made again from the input.
"""

from __future__ import annotations

import io
import json
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import Field

from alm import artifacts, files
from alm.config.base import Config
from alm.corpus.conversations import Turns
from alm.corpus.counts import Counts, printable
from alm.corpus.dedup import lines, minhash
from alm.corpus.records import record_of
from alm.errors import AlmError, ArtifactError, InputError
from alm.events import Listener

# Batches are what makes MinHash fast: 34 MB/s, against 8.7 MB/s text by text (docs/benchmarks.md, "Corpus").
_BATCH_CHARACTERS = 1 << 18
DIGEST_BYTES = 32
_CHECKSUM = "checksum"
# Limits for JSON that we write ourselves. The plan of a source has about 400 bytes and 14 values for each file, the
# details of a unit one value for each document. The limit in bytes bounds memory, as every value takes at least one.
_MOST_STATE_BYTES = 1 << 30


# ---- files --------------------------------------------------------------------------------------


class _WithEnding:
    """The file of a unit with this ending: an attribute of `UnitFiles`."""

    def __init__(self, ending: str) -> None:
        self.ending = ending

    def __get__(self, unit: UnitFiles, owner: type[UnitFiles]) -> Path:
        return unit.path(self.ending)


@dataclass(frozen=True)
class UnitFiles:
    """The paths of a unit's files, in the state folder of its source."""

    folder: Path
    number: int

    marker = _WithEnding(".json")  # `UnitMarker`, written last
    text = _WithEnding(".txt")  # the records of the documents that stay; gone once the unit is published
    digests = _WithEnding(".sha256")  # 32 bytes for each document
    sizes = _WithEnding(".sizes.npy")  # UTF-8 bytes of each document, before and after cleaning
    compared = _WithEnding(".compared.npy")  # the documents that are compared for near duplicates
    bands = _WithEnding(".bands.npy")  # MinHash keys of these documents, band by band
    line_keys = _WithEnding(".lines.npy")  # keys of the lines of all documents, sorted, each once for each document
    line_documents = _WithEnding(".lines.documents.npy")  # the document of each of these keys
    details = _WithEnding(".details.json")  # the origin of each document, and the changes made by cleaning
    turns = _WithEnding(".turns.json")  # `conversations.Turns` of each document that is a conversation
    repeated = _WithEnding(".repeated")  # lines to remove: pairs of document and key
    decisions = _WithEnding(".fates")  # the decision about each document

    def path(self, ending: str) -> Path:
        """Return the path `NNNNN` plus `ending`."""
        return self.folder / f"{self.number:05d}{ending}"

    def read_details(self) -> tuple[list[str], dict[str, dict[str, int]]]:
        """Return the origin of each document, and the changes to some, by document number as text."""
        try:
            found = _read_state(self.details)
            return found["origins"], found["changes"]
        except (KeyError, TypeError) as error:
            raise damaged(self.details) from error

    def read_turns(self) -> dict[int, Turns]:
        """Return the turns of the documents that are conversations, by document number."""
        if not self.turns.is_file():
            return {}
        try:
            return {int(number): tuple(map(tuple, turns)) for number, turns in _read_state(self.turns).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise damaged(self.turns) from error


# The files beside the text. The last four exist only where near duplicates, or repeated lines, are searched for, and
# where there are conversations.
_NEEDED = {".sha256", ".sizes.npy", ".compared.npy", ".details.json"}
_RESULTS = {*_NEEDED, ".bands.npy", ".lines.npy", ".lines.documents.npy", ".turns.json"}


def is_as_written(path: Path, digest: str, *, size: int | None = None) -> bool:
    """Whether `path` is a file with the SHA-256 `digest`. A known `size` is checked first, as that is cheap."""
    try:
        return path.is_file() and size in (None, path.stat().st_size) and files.sha256(path) == digest
    except (OSError, AlmError):
        return False


def damaged(path: Path) -> ArtifactError:
    """Return the error for a file that this command wrote and that has changed since."""
    return ArtifactError(
        f"`{path}` has changed since it was written: another program may write there, or the disk may be failing",
        hint="run the same command again: it rebuilds damaged files",
    )


def load_array(path: Path, *, dtype: DTypeLike, dimensions: int = 1, mapped: bool = False) -> NDArray[Any]:
    """Load the array at `path`, whose hash was checked before."""
    try:
        return files.array(path, dtype=dtype, dimensions=dimensions, mapped=mapped)
    except ValueError as error:
        raise damaged(path) from error


def _read_state(path: Path) -> Any:  # Any: JSON
    return files.read_json(path, most=_MOST_STATE_BYTES, most_values=_MOST_STATE_BYTES)


# ---- markers ------------------------------------------------------------------------------------


class UnitMarker(Config):
    """`NNNNN.json`: the record that the text of a unit, and the data about it, are complete.

    `capped` is the (limit, max_bytes) at which the first pass stopped early, or None if it read everything. `files`
    maps the suffix of each file beside the text to its SHA-256.
    """

    key: str
    documents: int = Field(ge=0)
    text_bytes: int = Field(ge=0)
    text_sha256: str
    capped: tuple[int | None, int | None] | None
    counts: Counts
    files: dict[str, str]


def read_marker(
    path: Path, schema: type[artifacts.AnyMetadata], *, may_lack_checksum: bool = False
) -> artifacts.AnyMetadata | None:
    """Read the marker at `path`; None if it is missing or damaged."""
    try:
        values = _read_state(path)
        if (_CHECKSUM in values or not may_lack_checksum) and values.pop(_CHECKSUM) != _checksum(values):
            return None
        return schema.model_validate(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AlmError):
        return None


def write_marker(path: Path, marker: Config) -> None:
    """Write `marker` with a checksum of itself."""
    values = marker.model_dump(mode="json")
    files.write_json(path, {**values, _CHECKSUM: _checksum(values)})


def _checksum(values: artifacts.Values) -> str:
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


# ---- stages -------------------------------------------------------------------------------------


AnyMarker = TypeVar("AnyMarker", covariant=True)


class Stage(Protocol[AnyMarker]):
    """One step of the work on one unit: `Clean`, `DedupLines` or `WriteTexts`. It pickles, for engines of processes."""

    @property
    def key(self) -> str:
        """A hash of all that decides the result."""
        ...

    @property
    def files(self) -> UnitFiles:
        """The files of the unit."""
        ...

    def finished(self) -> AnyMarker | None:
        """Return the marker if the stage has run with this key, and its files exist unchanged; else None."""
        ...

    def run(self, on_event: Listener) -> AnyMarker:
        """Make the files, and write the marker last: a kill before that leaves the stage unfinished."""
        ...


@dataclass(frozen=True)
class TextStage(ABC):
    """A stage that writes the text of a unit and data about its documents."""

    key: str
    files: UnitFiles

    @abstractmethod
    def run(self, on_event: Listener) -> UnitMarker:
        """Make the files, and write the marker last."""

    def marker(self) -> UnitMarker | None:
        """Return the marker if the stage has run with this key, else None."""
        marker = read_marker(self.files.marker, UnitMarker)
        return marker if marker is not None and marker.key == self.key else None

    def finished(self) -> UnitMarker | None:
        """Return the marker if all files that it lists, except the text, exist unchanged. Reads them all."""
        marker = self.marker()
        if marker is None or not _NEEDED <= marker.files.keys() <= _RESULTS:
            return None
        is_intact = all(is_as_written(self.files.path(ending), digest) for ending, digest in marker.files.items())
        return marker if is_intact else None

    def with_text(self, on_event: Listener) -> UnitMarker:
        """Run the stage again if its text is missing or damaged, for publishing moves texts away. Return the marker.

        Raises `InputError` if the text would differ from that about which later stages have decided.
        """
        before = self.marker()
        if before is not None and is_as_written(self.files.text, before.text_sha256, size=before.text_bytes):
            return before
        after = self.run(on_event)
        if before is not None and (before.text_sha256, before.files) != (after.text_sha256, after.files):
            raise InputError(
                f"`{self.files.text}` differs from the earlier run: the input has changed since",
                hint="run the same command again",
            )
        return after


class UnitWriter:
    """Writes the documents that stay, in order, and then data about them. A context manager around `add`.

    `signs` computes MinHash keys of the documents to compare, `has_lines` the keys of all lines.
    """

    def __init__(self, unit: UnitFiles, *, signs: bool, has_lines: bool) -> None:
        self._unit = unit
        self._stack = ExitStack()
        self._hash = sha256()
        self._text_bytes = 0
        self._digests: list[bytes] = []
        self._sizes = array("q")
        self._origins: list[str] = []
        self._changes: dict[int, dict[str, int]] = {}
        self._turns: dict[int, Turns] = {}
        self._compared = array("q")
        self._signer = _Signer() if signs else None
        self._lines = _LineKeys() if has_lines else None

    def __enter__(self) -> Self:
        self._unit.folder.mkdir(parents=True, exist_ok=True)
        self._unit.marker.unlink(missing_ok=True)  # first: an old marker must not describe the new files
        self._unit.turns.unlink(missing_ok=True)  # the new text may have no conversation
        self._write = self._stack.enter_context(files.atomic(self._unit.text)).write
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @property
    def documents(self) -> int:
        """The number of documents so far."""
        return len(self._digests)

    def add(
        self,
        text: str,
        data: bytes,
        *,
        origin: str,
        bytes_before: int,
        changes: dict[str, int],
        is_compared: bool,
        turns: Turns | None = None,
    ) -> None:
        """Add a document. `data` is its UTF-8; `changes` are the changes in its size by cleaning."""
        number = len(self._digests)
        self._digests.append(sha256(data).digest())
        self._sizes.extend((bytes_before, len(data)))
        self._origins.append(printable(origin))
        if changes:
            self._changes[number] = changes
        if is_compared:
            self._compared.append(number)
            if self._signer is not None:
                self._signer.add(number, text)
        if turns is not None:
            self._turns[number] = turns
        elif self._lines is not None:  # lines of conversations stay: a common short answer is not a repetition
            self._lines.add(number, text)
        raw = record_of(text, data)
        self._write(raw)
        self._hash.update(raw)
        self._text_bytes += len(raw)

    def finish(self) -> dict[str, float]:
        """Process the remaining batches. Return the seconds spent, by step."""
        batched = {"near_duplicates": self._signer, "repeated_lines": self._lines}
        for each in batched.values():
            if each is not None:
                each.flush()
        return {name: each.seconds for name, each in batched.items() if each is not None}

    def save(self, *, key: str, capped: tuple[int | None, int | None] | None, counts: Counts) -> UnitMarker:
        """Write all files beside the text, which exists already, and the marker last."""
        digests = {}
        for ending, data in self._results():
            files.write_bytes(self._unit.path(ending), data)
            digests[ending] = sha256(data).hexdigest()
        marker = UnitMarker(
            key=key,
            documents=self.documents,
            text_bytes=self._text_bytes,
            text_sha256=self._hash.hexdigest(),
            capped=capped,
            counts=counts,
            files=digests,
        )
        write_marker(self._unit.marker, marker)
        return marker

    def _results(self) -> Iterator[tuple[str, bytes]]:
        yield ".sha256", b"".join(self._digests)
        yield ".sizes.npy", _npy(np.frombuffer(self._sizes, dtype=np.int64).reshape(-1, 2))
        yield ".compared.npy", _npy(np.frombuffer(self._compared, dtype=np.int64))
        details = {"origins": self._origins, "changes": self._changes}
        yield ".details.json", json.dumps(details, ensure_ascii=False).encode("utf-8")
        if self._turns:
            yield ".turns.json", json.dumps(self._turns, separators=(",", ":")).encode()
        if self._signer is not None:
            yield ".bands.npy", _npy(self._signer.bands())
        if self._lines is not None:
            keys, documents = self._lines.sorted()
            yield ".lines.npy", _npy(keys)
            yield ".lines.documents.npy", _npy(documents)


def _npy(values: NDArray[Any]) -> bytes:
    packed = io.BytesIO()
    np.save(packed, values, allow_pickle=False)
    return packed.getvalue()


class _Batched(ABC):
    """Collects texts into batches, because NumPy processes many texts at once faster than one by one."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._texts: list[str] = []
        self._characters = 0
        self.seconds = 0.0

    def add(self, number: int, text: str) -> None:
        self._numbers.append(number)
        self._texts.append(text)
        self._characters += len(text)
        if self._characters >= _BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        if self._texts:
            before = time.perf_counter()
            self._process(self._numbers, self._texts)
            self._numbers, self._texts, self._characters = [], [], 0
            self.seconds += time.perf_counter() - before

    @abstractmethod
    def _process(self, numbers: list[int], texts: list[str]) -> None: ...


class _Signer(_Batched):
    def __init__(self) -> None:
        super().__init__()
        self._signer = minhash.Signer()
        self._bands = [np.zeros((0, minhash.BANDS), dtype=np.uint64)]

    def _process(self, numbers: list[int], texts: list[str]) -> None:
        self._bands.append(self._signer.bands_of(texts))

    def bands(self) -> NDArray[np.uint64]:
        """Return keys of shape (bands, documents), so that one band can be read without the others."""
        return np.ascontiguousarray(np.concatenate(self._bands).T)


class _LineKeys(_Batched):
    def __init__(self) -> None:
        super().__init__()
        self._keys = [np.zeros(0, dtype=np.uint64)]
        self._documents = [np.zeros(0, dtype=np.uint32)]

    def _process(self, numbers: list[int], texts: list[str]) -> None:
        keys, _, index = lines.keys_of(texts)
        self._keys.append(keys)
        self._documents.append(np.array(numbers, dtype=np.uint32)[index])

    def sorted(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Return keys and documents, sorted by key and then document, without repeated pairs."""
        keys, documents = np.concatenate(self._keys), np.concatenate(self._documents)
        order = np.argsort(keys, kind="stable")  # documents are in increasing order already
        keys, documents = keys[order], documents[order]
        is_new = np.ones(len(keys), dtype=bool)
        is_new[1:] = (keys[1:] != keys[:-1]) | (documents[1:] != documents[:-1])
        return keys[is_new], documents[is_new]
