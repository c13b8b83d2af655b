"""The files that a pass over a unit writes: the text of the documents that stay, and data about each for later steps.

All files are checked before use: a marker holds a hash of itself and of every file that it lists. A file that fails
the check counts as absent, and is made again from the input.
"""

from __future__ import annotations

import io
import json
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import Field

from alm import artifacts, files
from alm.config.base import Config
from alm.corpus.counts import Counts, printable
from alm.corpus.records import record_of
from alm.errors import AlmError, ArtifactError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

# Batches are what makes MinHash fast: 34 MB/s, against 8.7 MB/s text by text (docs/benchmarks.md, "Corpus").
_BATCH_CHARACTERS = 1 << 18
DIGEST_BYTES = 32
_CHECKSUM = "checksum"
# Limits for JSON that we write ourselves. The plan of a source has about 400 bytes and 14 values for each file, the
# details of a unit one value for each document. The limit in bytes bounds memory, as every value takes at least one.
_MOST_STATE_BYTES = 1 << 30


class Marker(Config):
    """`NNNNN.json`: the record that a pass over a unit is complete.

    `capped` is the (limit, max_bytes) at which the pass stopped early, or None if it read everything. `files` maps
    the suffix of each file beside the text to its SHA-256.
    """

    key: str
    documents: int = Field(ge=0)
    text_bytes: int = Field(ge=0)
    text_sha256: str
    capped: tuple[int | None, int | None] | None
    counts: Counts
    files: dict[str, str]


@dataclass(frozen=True)
class UnitFiles:
    """The paths of a unit's files, in the state folder of its source."""

    folder: Path
    number: int

    def path(self, ending: str) -> Path:
        """Return the path `NNNNN` plus `ending`."""
        return self.folder / f"{self.number:05d}{ending}"

    @property
    def marker(self) -> Path:
        """The marker, written last."""
        return self.path(".json")

    @property
    def text(self) -> Path:
        """The records of the documents that stay; gone once the unit is published."""
        return self.path(".txt")

    @property
    def digests(self) -> Path:
        """SHA-256 of each document."""
        return self.path(".sha256")

    @property
    def sizes(self) -> Path:
        """UTF-8 bytes of each document, before and after cleaning."""
        return self.path(".sizes.npy")

    @property
    def compared(self) -> Path:
        """The documents that are compared for near duplicates."""
        return self.path(".compared.npy")

    @property
    def bands(self) -> Path:
        """MinHash keys of the compared documents, band by band."""
        return self.path(".bands.npy")

    @property
    def line_keys(self) -> Path:
        """Keys of the lines of all documents, sorted, each once for each document."""
        return self.path(".lines.npy")

    @property
    def line_documents(self) -> Path:
        """The document of each of these keys."""
        return self.path(".lines.documents.npy")

    @property
    def repeated(self) -> Path:
        """Lines to remove because earlier documents contain them: pairs of document and key."""
        return self.path(".repeated")

    @property
    def details(self) -> Path:
        """The origin of each document, and the changes made by cleaning."""
        return self.path(".details.json")

    @property
    def fates(self) -> Path:
        """The decision about each document."""
        return self.path(".fates")

    def have_results(self, marker: Marker) -> bool:
        """Whether all files that `marker` lists, except the text, exist unchanged. Reads them all."""
        return _NEEDED <= marker.files.keys() <= _RESULTS and all(
            is_as_written(self.path(ending), digest) for ending, digest in marker.files.items()
        )

    def have_text(self, marker: Marker | None) -> bool:
        """Whether the text that `marker` lists exists unchanged. Reads it all."""
        return marker is not None and is_as_written(self.text, marker.text_sha256, size=marker.text_bytes)

    def read_details(self) -> tuple[list[str], dict[str, dict[str, int]]]:
        """Return the origin of each document, and the changes to some, by document number as text."""
        try:
            found = _state(self.details)
            return found["origins"], found["changes"]
        except (KeyError, TypeError) as error:
            raise damaged(self.details) from error


# Files that a first pass writes beside the text. The last three exist only if near duplicates, or repeated lines, are
# searched for.
_NEEDED = {".sha256", ".sizes.npy", ".compared.npy", ".details.json"}
_RESULTS = {*_NEEDED, ".bands.npy", ".lines.npy", ".lines.documents.npy"}


def is_as_written(path: Path, digest: str, *, size: int | None = None) -> bool:
    """Whether `path` is a file with the SHA-256 `digest`. A known `size` is checked first, as that is cheap."""
    try:
        return path.is_file() and size in (None, path.stat().st_size) and files.sha256(path) == digest
    except (OSError, AlmError):
        return False


def _state(path: Path) -> Any:  # Any: JSON
    return files.read_json(path, most=_MOST_STATE_BYTES, most_values=_MOST_STATE_BYTES)


def damaged(path: Path) -> ArtifactError:
    """Return the error for a file that this command wrote and that has changed since."""
    return ArtifactError(
        f"`{path}` has changed since it was written: another program may write there, or the disk may be failing",
        hint="run the same command again: it rebuilds damaged files",
    )


def read_marker(
    path: Path, schema: type[artifacts.AnyMetadata], *, may_lack_checksum: bool = False
) -> artifacts.AnyMetadata | None:
    """Read the marker at `path`; None if it is missing or damaged."""
    try:
        values = _state(path)
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


class Kept:
    """Collects the documents that stay, in order, and writes them to `text`.

    `signs` computes MinHash keys of the documents to compare, `has_lines` the keys of all lines.
    """

    def __init__(self, files: UnitFiles, text: IO[bytes], *, signs: bool, has_lines: bool) -> None:
        self._files = files
        self._write = text.write
        self._hash = sha256()
        self._digests: list[bytes] = []
        self._sizes = array("q")
        self._origins: list[str] = []
        self._changes: dict[int, dict[str, int]] = {}
        self._compared = array("q")
        self._signer = _Signer() if signs else None
        self._lines = _LineKeys() if has_lines else None
        self.text_bytes = 0
        self.seconds: dict[str, float] = {}

    @property
    def documents(self) -> int:
        """The number of documents so far."""
        return len(self._digests)

    def add(
        self, text: str, data: bytes, *, origin: str, bytes_before: int, changes: dict[str, int], is_compared: bool
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
        if self._lines is not None:
            self._lines.add(number, text)
        raw = record_of(text, data)
        self._write(raw)
        self._hash.update(raw)
        self.text_bytes += len(raw)

    def save(self, *, key: str, capped: tuple[int | None, int | None] | None, counts: Counts) -> Marker:
        """Write all files beside the text, which exists already, and the marker last."""
        digests = {}
        for ending, data in self._results():
            files.write_bytes(self._files.path(ending), data)
            digests[ending] = sha256(data).hexdigest()
        marker = Marker(
            key=key,
            documents=self.documents,
            text_bytes=self.text_bytes,
            text_sha256=self._hash.hexdigest(),
            capped=capped,
            counts=counts,
            files=digests,
        )
        write_marker(self._files.marker, marker)
        return marker

    def _results(self) -> Iterator[tuple[str, bytes]]:
        import numpy as np

        yield ".sha256", b"".join(self._digests)
        yield ".sizes.npy", npy(np.frombuffer(self._sizes, dtype=np.int64).reshape(-1, 2))
        yield ".compared.npy", npy(np.frombuffer(self._compared, dtype=np.int64))
        details = {"origins": self._origins, "changes": self._changes}
        yield ".details.json", json.dumps(details, ensure_ascii=False).encode("utf-8")
        if self._signer is not None:
            yield ".bands.npy", npy(self._signer.bands())
        if self._lines is not None:
            keys, documents = self._lines.sorted()
            yield ".lines.npy", npy(keys)
            yield ".lines.documents.npy", npy(documents)

    def finish(self) -> dict[str, float]:
        """Process the remaining batches. Return the seconds spent, by step."""
        seconds = {}
        if self._signer is not None:
            self._signer.flush()
            seconds["near_duplicates"] = self._signer.seconds
        if self._lines is not None:
            self._lines.flush()
            seconds["repeated_lines"] = self._lines.seconds
        return seconds


class _Batched:
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
            self._work(self._numbers, self._texts)
            self._numbers, self._texts, self._characters = [], [], 0
            self.seconds += time.perf_counter() - before

    def _work(self, numbers: list[int], texts: list[str]) -> None:
        raise AssertionError


class _Signer(_Batched):
    def __init__(self) -> None:
        from alm.corpus.dedup import minhash

        super().__init__()
        self._signer = minhash.Signer()
        self._count = minhash.BANDS
        self._bands: list[NDArray[np.uint64]] = []

    def _work(self, numbers: list[int], texts: list[str]) -> None:
        self._bands.append(self._signer.bands_of(texts))

    def bands(self) -> NDArray[np.uint64]:
        """Return keys of shape (bands, documents), so that one band can be read without the others."""
        import numpy as np

        if not self._bands:
            return np.zeros((self._count, 0), dtype=np.uint64)
        return np.ascontiguousarray(np.concatenate(self._bands).T)


class _LineKeys(_Batched):
    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []

    def _work(self, numbers: list[int], texts: list[str]) -> None:
        import numpy as np

        from alm.corpus.pipeline.dedup_lines import keys_of

        keys, _, index = keys_of(texts)
        self._found.append((keys, np.array(numbers, dtype=np.uint32)[index]))

    def sorted(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Return keys and documents, sorted by key and then document, without repeated pairs."""
        import numpy as np

        keys = np.concatenate([np.zeros(0, dtype=np.uint64), *(keys for keys, _ in self._found)])
        documents = np.concatenate([np.zeros(0, dtype=np.uint32), *(numbers for _, numbers in self._found)])
        order = np.argsort(keys, kind="stable")  # documents are in increasing order already
        keys, documents = keys[order], documents[order]
        is_new = np.ones(len(keys), dtype=bool)
        is_new[1:] = (keys[1:] != keys[:-1]) | (documents[1:] != documents[:-1])
        return keys[is_new], documents[is_new]


def npy(values: NDArray[Any]) -> bytes:
    """Return the bytes of a NumPy file of `values`."""
    import numpy as np

    packed = io.BytesIO()
    np.save(packed, values, allow_pickle=False)
    return packed.getvalue()


def load_array(path: Path, *, dtype: DTypeLike, dimensions: int = 1, mapped: bool = False) -> NDArray[Any]:
    """Load the array at `path`, whose hash was checked before."""
    try:
        return files.array(path, dtype=dtype, dimensions=dimensions, mapped=mapped)
    except ValueError as error:
        raise damaged(path) from error
