"""What tiktoken makes of an export: the same ids, from the files alone."""

from __future__ import annotations

import base64
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from alm.errors import AlmError, InputError
from alm.tokenizers import tiktoken as exporting
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import Pattern, count_words
from alm.tokenizers.words import Words

pytest.importorskip("tiktoken")


def trained(texts: list[str], pattern: Pattern = "qwen2", **config: str) -> Tokenizer:
    words = Words.of(count_words(texts, pattern))
    made = bpe.train(words, config=bpe.Config.model_validate(config), vocab_size=700)
    return Tokenizer.of(made, pattern=pattern)


@pytest.mark.sampled(1)
def test_tiktoken_gives_the_same_ids(
    pattern: Pattern, prose: list[str], soup: list[str], every_scalar: list[str], tmp_path: Path
) -> None:
    tokenizer = trained(prose, pattern)
    written = exporting.export(tokenizer, tmp_path / "my-words")
    assert [path.name for path in written] == ["my_words.tiktoken", "my_words.py"]
    spec = importlib.util.spec_from_file_location("my_words", written[1])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encoding = module.encoding()
    assert (encoding.name, encoding.n_vocab) == ("my_words", tokenizer.vocab_size)
    for text in (*prose, *soup[:500], *every_scalar):
        assert encoding.encode_ordinary(text) == tokenizer.encode(text)
    assert encoding.encode("a<|im_end|>", allowed_special="all")[-1] == 2


def test_a_line_is_a_token_and_its_id(tmp_path: Path) -> None:
    exporting.export(Tokenizer.from_merges([(80, 81)]), tmp_path / "x")
    lines = (tmp_path / "x" / "x.tiktoken").read_text().splitlines()
    assert len(lines) == 257
    assert lines[0] == f"{base64.b64encode(b'!').decode()} 16"
    assert lines[-1] == f"{base64.b64encode(b'ab').decode()} 272"


def test_what_tiktoken_cannot_say_is_refused(prose: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this is BPE over characters"):
        exporting.export(trained(prose, byte_handling="fallback"), tmp_path / "x")
    a, b = 80, 81
    swapped = bpe.Model([*bpe.base_tokens(), b"ba", b"ab"], [(a, b, 273), (b, a, 272)])
    with pytest.raises(InputError, match="ids in another order"):
        exporting.export(Tokenizer.of(swapped), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("folder", "name"), [("a.b-c", "a_b_c"), ("tiktoken", "alm_tiktoken"), ("1x", "alm_1x")])
def test_the_module_can_be_imported_whatever_the_folder(folder: str, name: str, tmp_path: Path) -> None:
    written = exporting.export(Tokenizer.from_merges([]), tmp_path / folder)
    assert [path.name for path in written] == [f"{name}.tiktoken", f"{name}.py"]
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}; print({name}.encoding().encode('a'))"],
        cwd=tmp_path / folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[80]\n"


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "x"
    exporting.export(Tokenizer.from_merges([(80, 81)]), out)
    before = (out / "x.tiktoken").read_text()
    exporting.export(Tokenizer.from_merges([(80, 81)]), out)
    with pytest.raises(InputError, match="exists"):
        exporting.export(Tokenizer.from_merges([(81, 80)]), out)
    assert (out / "x.tiktoken").read_text() == before
    exporting.export(Tokenizer.from_merges([(81, 80)]), out, force=True)
    assert (out / "x.tiktoken").read_text() != before


def test_the_check_sees_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.from_merges([(80, 81)])
    assert exporting.checked(tokenizer)
    monkeypatch.setattr(tokenizer, "encode", lambda text: [1])
    with pytest.raises(AlmError, match="tiktoken gives different ids for 'abc'"):
        exporting.checked(tokenizer, ["abc"])
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    assert not exporting.checked(tokenizer)
