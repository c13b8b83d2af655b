"""Files that lie in folders of text and are not prose: left out unless the user asks for them."""

from __future__ import annotations

import re
from pathlib import Path

from alm.files import suffix

_NAMED = (
    ".warc .wet .wat .arc .cdx .mht .mhtml .rss .atom "  # the web
    ".mbox .mbx .mail .eml .emlx .ics .vcf "
    ".srt .vtt .sbv .sub .smi .ttml .dfxp .ass .ssa .lrc "  # words with times
    ".tex .ltx .latex .dtx .texi .bib .bbl .aux .toc .cls .sty .ris .nbib .enw "
    ".ipynb .css .svg .ps .eps .rtf .map .lock .sum .pem .key .po .diff .patch .log "
    ".bak .orig .old .save .sav .rej .swp .swo .tmp .part .crdownload"
)
_SUFFIXES = frozenset(_NAMED.split())
# Backups and locks of editors and office programs, locks of package managers, scripts that were made smaller.
_NAME = re.compile(
    r".*~|#.*#|~\$.*|~lock\..*|.*\.bak\d+|.*\.(?:txt|md|log)\.\d+|mbox|nohup\.out"
    r"|.*[-.]lock\.(?:json|yaml)|npm-shrinkwrap\.json|.*\.min\.js",
    re.IGNORECASE | re.DOTALL,
)
_PAGES = (".html", ".htm", ".xhtml")
# Browsers in other languages name the folder beside a saved page in these.
_FOLDER = re.compile(
    r"(.+)[-_.](?:files|file|dateien|fichiers|archivos|arquivos|ficheiros|bestanden|filer|pliki|soubory|tiedostot"
    r"|dosyalar)",
    re.IGNORECASE | re.DOTALL,
)


def what_else(path: Path) -> str | None:
    """Return what a file that is not prose is called in a message; None for any other file."""
    for folder in path.parents:
        if _is_of_page(folder):
            return "of saved pages"
    if _NAME.fullmatch(path.name):
        return "backups and locks" if not path.name.lower().endswith(".js") else ".min.js"
    return end if (end := suffix(path)) in _SUFFIXES else None


def _is_of_page(folder: Path) -> bool:
    """Whether a browser made `folder` when it saved the page beside it."""
    name = _FOLDER.fullmatch(folder.name)
    return name is not None and any(folder.with_name(name[1] + end).is_file() for end in _PAGES)
