"""Find words that CONTRIBUTING.md rules out in messages, docstrings, comments and pages: `nox -s lint` runs this.

They are correct English, but not what an engineer writes today, and each has a plain replacement.
"""

from __future__ import annotations

import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {
    r"\banew\b": "again",
    r"\bmend(s|ed|ing)?\b": "fix, repair",
    r"\bnobody (tells|knows|says)\b": "unknown",
    r"\bso (many|much|long)\b(?! (as|that)\b)": "this many, N",
    r"\bheld against\b": "compared with",
    r"\b(is|are|was|were) told\b": "reported, shown",
    r"\btells?\b": "report, say, show",
    r"\bgo(es)? on\b|\bgone on\b": "continue",
    r"\bin vain\b|\bof one's own\b": "a plainer phrase",
}
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "docs/adr/*.md")
# What a model wrote is data.
SKIPPED = ("alm/tokenizers/probes.py",)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings and comments of a module, or the text of a page outside of blocks of output, with lines."""
    if path.suffix == ".py":
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type in (tokenize.STRING, tokenize.COMMENT):
                    lines = token.string.splitlines()
                    yield from ((token.start[0] + n, re.sub(r"`[^`]*`", "`", line)) for n, line in enumerate(lines))
        return
    is_output = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        is_output ^= line.lstrip().startswith("```")
        if not is_output:
            yield number, re.sub(r"`[^`]*`", "`", line)


def main() -> None:
    """Print each place, and exit with 1 if there is one."""
    paths = [ROOT / "noxfile.py", ROOT / "docs" / "generate.py"]
    paths += [
        path for path in sorted(ROOT.glob("alm/**/*.py")) if not path.relative_to(ROOT).as_posix().startswith(SKIPPED)
    ]
    paths += [path for pattern in TEXTS for path in sorted(ROOT.glob(pattern))]
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}: `{match[0]}`: write {better}"
        for path in paths
        for number, line in prose(path)
        for pattern, better in PLAIN.items()
        for match in re.finditer(pattern, line, re.IGNORECASE)
    ]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
