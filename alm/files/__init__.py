"""Files that are complete or absent: written, locked, published together, read with limits, decompressed.

Everything `alm` writes goes through three functions. `atomic` writes one file: a temporary file in the same folder,
fsync, rename, fsync of the folder. `publish` makes several files appear together, through a journal with one commit
point. `exclusive` gives a folder to one process. A reader never sees half a file, and a kill at any instant loses
nothing.
"""

from alm.files.lock import Owner, exclusive, holder
from alm.files.packed import Readable, chunks, compression, open_binary, suffix
from alm.files.parse import ROW_DECODER, RepeatedKeys, array, bounded_bytes, parse_json, parse_row, raw_array, read_json
from alm.files.publish import clear, ensure_published, inside, publish, remove_folder, staging, sweep, workspace
from alm.files.read import as_text, not_utf8, read_bytes, read_text, readable, regular, sha256
from alm.files.unchanged import Unchanged
from alm.files.write import (
    atomic,
    hint_for,
    indented_json,
    is_full,
    is_running,
    sync_folder,
    system_error,
    wrap_os_errors,
    write_bytes,
    write_json,
    write_text,
)

__all__ = [
    "ROW_DECODER",
    "Owner",
    "Readable",
    "RepeatedKeys",
    "Unchanged",
    "array",
    "as_text",
    "atomic",
    "bounded_bytes",
    "chunks",
    "clear",
    "compression",
    "ensure_published",
    "exclusive",
    "hint_for",
    "holder",
    "indented_json",
    "inside",
    "is_full",
    "is_running",
    "not_utf8",
    "open_binary",
    "parse_json",
    "parse_row",
    "publish",
    "raw_array",
    "read_bytes",
    "read_json",
    "read_text",
    "readable",
    "regular",
    "remove_folder",
    "sha256",
    "staging",
    "suffix",
    "sweep",
    "sync_folder",
    "system_error",
    "workspace",
    "wrap_os_errors",
    "write_bytes",
    "write_json",
    "write_text",
]
