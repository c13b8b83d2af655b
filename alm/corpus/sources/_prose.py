"""Files that lie in folders of text and are not prose: left out unless the user asks for them."""

from __future__ import annotations

import re
from pathlib import Path

from alm.errors import InputError
from alm.files import open_binary, suffix

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

_HEAD_BYTES = 4096
_XML = rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--[^>]*-->\s*|<!DOCTYPE[^>]*>\s*)*"
_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +(?:[A-Z][a-z]{2} +\d|\d+ [A-Z][a-z]{2})"
_FIRST_HEADER = (
    rb"Return-Path: ?<|Received: (?:\(|from |by )|Delivered-To: [^\n]*@|Message-ID: ?<|From: <Saved by |"
    rb"X-(?:Account|Apparently|Envelope|Gmail|Mozilla|Original|Received|Sender|Spam|UID|VM)[A-Za-z0-9-]*: "
)
# How files begin that are not prose, whatever their names are. Each pattern is more than words.
_BEGINNINGS = {
    "web archives": rb"WARC/\d\.\d\r?\n|filedesc://\S+ [\d.]+ \d{14}| CDX [A-Za-z ]{5,}\r?\n",
    "mail": rb"(?:From \S+ +(?:\S+ +)?" + _DAY + rb"[^\n]*\d\d:\d\d[^\n]*|(?i:" + _FIRST_HEADER + rb")[^\n]*)\n"
    rb"(?:[ \t>][^\n]*\n)*[A-Za-z][A-Za-z0-9-]*:[ \r\n]",
    "calendars and contacts": rb"BEGIN:V(?:CALENDAR|CARD)\r?\n",
    "subtitles": rb"(?:\d+\r?\n)?(?:\d\d:)?\d\d:\d\d[,.]\d{3} --> |WEBVTT[ \t\r\n]|\[Script Info\]\r?\n",
    "LaTeX": rb"(?:\s*%[^\n]*\n)*\s*\\document(?:class|style)\s*[\[{]",
    "BibTeX": rb"(?:\s*%[^\n]*\n)*\s*@[A-Za-z]{4,15}\{[^\s,{}]+,\s*\n\s*[A-Za-z]+\s*=",
    "notebooks": rb'\s*\{\s*"(?:cells|metadata|nbformat(?:_minor)?)"\s*:(?s:.*)"cell_type"\s*:',
    "PostScript": rb"%!PS(?:-Adobe)?-?[\d. \r\n]",
    "feeds and drawings": _XML + rb"<(?:rss|feed|svg)\s[^>]*(?:version|xmlns)",
    "keys and certificates": rb"-----BEGIN [A-Z0-9 ]+-----\r?\n",
    "patches": rb"diff --git a/[^\n]* b/[^\n]*\n|--- [^\n]+\n\+\+\+ [^\n]+\n@@ -\d",
    "pointers of Git LFS": rb"version https://git-lfs\.github\.com/spec/v\d\r?\noid ",
}
_BEGINNING = {kind: re.compile(pattern) for kind, pattern in _BEGINNINGS.items()}


def what_else(path: Path) -> str | None:
    """Return what a file that is not prose is called in a message; None for any other file."""
    for folder in path.parents:
        if _is_of_page(folder):
            return "of saved pages"
    if _NAME.fullmatch(path.name):
        return "backups and locks" if not path.name.lower().endswith(".js") else ".min.js"
    return end if (end := suffix(path)) in _SUFFIXES else None


def what_within(path: Path) -> str | None:
    """Return what the contents of a file are called in a message if they are not prose; None for any others."""
    try:
        with open_binary(path) as file:
            head = file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    except (InputError, OSError):  # reading it will raise the error
        return None
    kind = next((kind for kind, found in _BEGINNING.items() if found.match(head)), None)
    return None if kind is None else f"{suffix(path) or 'without suffix'} that hold {kind}"


def _is_of_page(folder: Path) -> bool:
    """Whether a browser made `folder` when it saved the page beside it."""
    name = _FOLDER.fullmatch(folder.name)
    return name is not None and any(folder.with_name(name[1] + end).is_file() for end in _PAGES)
