"""A GGUF file as the kinds write it: with its origin, and forced to the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alm import shown
from alm.export.config import TargetConfig
from alm.export.source import Source
from alm.files import wrap_os_errors

if TYPE_CHECKING:
    import gguf


@contextmanager
def writing(path: Path, architecture: str) -> Iterator[gguf.GGUFWriter]:
    """Yield the writer of keys and tensors, and write them to the file at `path` afterwards."""
    import gguf

    with wrap_os_errors(path), closing(gguf.GGUFWriter(path, architecture)) as writer:
        yield writer
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    with wrap_os_errors(path), path.open("rb+") as file:
        os.fsync(file.fileno())


def add_origin(writer: gguf.GGUFWriter, config: TargetConfig, source: Source) -> None:
    """Write where the file comes from: it may travel without its folder."""
    writer.add_name(shown.line(config.title or source.name))  # programs print it as it is
    if config.licence is not None:
        writer.add_license(shown.line(config.licence))
    writer.add_uint64("alm.step", source.step)
    writer.add_string("alm.checkpoint_sha256", source.sha256)
    writer.add_string("alm.tokenizer_sha256", source.tokenizer.sha256)
