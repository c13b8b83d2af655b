"""Files that lie in folders of text and are not prose: left out unless the user asks for them."""

from __future__ import annotations

import re
from pathlib import Path

from alm.files import suffix

_SUFFIXES = frozenset(
    {".warc", ".wet", ".wat", ".ipynb", ".mbox", ".mbx", ".eml", ".emlx", ".mht", ".mhtml", ".ics", ".vcf"}
    | {".srt", ".vtt", ".sbv", ".ass", ".ssa", ".lrc", ".tex", ".bib", ".bbl", ".aux", ".toc", ".cls", ".sty"}
    | {".css", ".svg", ".map", ".lock", ".sum"}
    | {".bak", ".orig", ".old", ".rej", ".swp", ".swo", ".tmp", ".part", ".crdownload"}
)
# Backups and locks of editors and office programs, locks of package managers, scripts that were made smaller.
_NAME = re.compile(r".*~|#.*#|~\$.*|~lock\..*|.*[-.]lock\.(?:json|yaml)|.*\.min\.js", re.IGNORECASE | re.DOTALL)
_PAGES = (".html", ".htm", ".xhtml")


def what_else(path: Path) -> str | None:
    """Return what a file that is not prose is called in a message; None for any other file."""
    for folder in path.parents:
        if folder.name.endswith(("_files", ".files")) and _is_of_page(folder):
            return "of saved pages"
    if _NAME.fullmatch(path.name):
        return "backups and locks" if not path.name.lower().endswith(".js") else ".min.js"
    return end if (end := suffix(path)) in _SUFFIXES else None


def _is_of_page(folder: Path) -> bool:
    """Whether a browser made `folder` when it saved the page beside it."""
    return any(folder.with_name(folder.name[: -len("_files")] + end).is_file() for end in _PAGES)
