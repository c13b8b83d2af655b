"""Exports a tokenizer for tiktoken: a file of tokens by rank, and a Python module that loads it.

Each line of the file holds a token's bytes in base 64 and its id, which is its rank. Merges follow from the ranks of
the tokens they produce, so the file does not list them. Only byte-level BPE can be written in this form.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import cast

from alm.errors import AlmError, InputError
from alm.files import ensure_published, publish, read_bytes, workspace, write_text
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.pretokenize import PATTERNS, Pattern
from alm.tokenizers.probes import PROBES

_MODULE = '''
    """The tokenizer in `{ranks}` beside this file, for tiktoken. Written by `alm tokenizer export`."""

    from pathlib import Path

    import tiktoken
    from tiktoken.load import load_tiktoken_bpe


    def encoding() -> tiktoken.Encoding:
        """Gives the ids of the tokenizer.json that this was made from, whose sha256 is
        {sha256}."""
        return tiktoken.Encoding(
            {name!r},
            pat_str={pattern!r},
            mergeable_ranks=load_tiktoken_bpe(str(Path(__file__).with_name({ranks!r}))),
            special_tokens={specials},
        )
'''


def export(tokenizer: Tokenizer, out: Path, *, force: bool = False) -> list[Path]:
    """Write `<name>.tiktoken` and `<name>.py` into the folder `out`, named after it. Return the written paths.

    Raises `InputError` if tiktoken cannot represent the tokenizer, or if a file exists there and `force` is not set.
    """
    _check(tokenizer)
    name = _module_name(out)
    written = {f"{name}.tiktoken": ranks(tokenizer), f"{name}.py": module(tokenizer, name)}
    ensure_published(out)
    for file, text in written.items():
        path = out / file
        if path.exists() and read_bytes(path) != text.encode() and not force:
            raise InputError(
                f"`{path}` exists", hint=f"add `--force` to replace it, or name a folder other than `{out}`"
            )
    with workspace(out, "export", what=f"`{out}`") as stage:
        for file, text in written.items():
            write_text(stage / file, text)
        publish(stage, out, last=f"{name}.py")
    return [out / file for file in written]


def ranks(tokenizer: Tokenizer) -> str:
    """Return the text of the file of ranks."""
    ids = sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.specials.values()))
    return "".join(f"{base64.b64encode(tokenizer.token_bytes(id_)).decode()} {id_}\n" for id_ in ids)


def module(tokenizer: Tokenizer, name: str) -> str:
    """Return the text of the Python module."""
    return (
        dedent(_MODULE)
        .lstrip()
        .format(
            name=name,
            ranks=f"{name}.tiktoken",
            sha256=tokenizer.sha256,
            pattern=PATTERNS[cast(Pattern, tokenizer.pattern)],
            specials=dict(tokenizer.specials),
        )
    )


def checked(tokenizer: Tokenizer, texts: Sequence[str] = tuple(PROBES.values())) -> bool:
    """Compare tiktoken's ids for `texts` with the tokenizer's. Return False if tiktoken is not installed.

    Raises `AlmError` if the ids differ.
    """
    try:
        import tiktoken
    except ImportError:
        return False
    lines = (line.split() for line in ranks(tokenizer).splitlines())
    encoding = tiktoken.Encoding(
        "checked",
        pat_str=PATTERNS[cast(Pattern, tokenizer.pattern)],
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in lines},
        special_tokens=dict(tokenizer.specials),
    )
    for text in texts:
        if encoding.encode_ordinary(text) != tokenizer.encode(text):
            raise AlmError(
                f"tiktoken gives different ids for {text[:40]!r}",
                hint="report this as a bug of alm, with your tokenizer.json; do not use the export",
            )
    return True


def _check(tokenizer: Tokenizer) -> None:
    hint = "run `alm tokenizer train --out artifacts/bpe.json` for one that can be exported"
    if tokenizer.kind != "bpe" or not tokenizer.is_byte_level:
        raise InputError(f"tiktoken supports only byte-level BPE, and this is {_what(tokenizer)}", hint=hint)
    if tokenizer.normalizer.kind != "none" or tokenizer.found_in_text:
        raise InputError(
            "tiktoken has no normalizer, and no tokens other than special ones that are found in text", hint=hint
        )
    first = max(0, tokenizer.vocab_size - tokenizer.merges)
    made = [tokenizer.token_bytes(a) + tokenizer.token_bytes(b) for a, b in tokenizer.merge_pairs]
    if [tokenizer.token_bytes(id_) for id_ in range(first, tokenizer.vocab_size)] != made:
        raise InputError(
            "tiktoken uses a token's id as its rank, but these merges have ids in another order", hint=hint
        )


def _module_name(out: Path) -> str:
    """Return the folder's name as an importable module name, other than `tiktoken` itself."""
    name = re.sub(r"\W", "_", out.resolve().name, flags=re.ASCII)
    return f"alm_{name}" if name == "tiktoken" or not name.isidentifier() else name


def _what(tokenizer: Tokenizer) -> str:
    return "Unigram" if tokenizer.kind == "unigram" else "BPE over characters"
