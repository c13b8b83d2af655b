"""Text that changes while it is read: nothing is made of a mixture."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import pytest
from builders import texts, write_clean, write_tokenizer

from alm.engines.serial import Serial
from alm.errors import InputError
from alm.events import Listener, ignore
from alm.files import Unchanged
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.tokenizers import train
from alm.tokenizers.config import TokenizerConfig


class Meddling(Serial):
    """An engine during whose first unit somebody else writes."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        self._meddle = meddle

    def map(self, function, units: Iterable, *, on_event: Listener = ignore) -> Generator:  # type: ignore[no-untyped-def,type-arg,override]
        for number, result in super().map(function, units, on_event=on_event):
            if number == 0:
                self._meddle()
            yield number, result


@pytest.mark.parametrize("is_other", [False, True])
def test_a_corpus_that_is_made_again_while_it_is_packed_is_told(tmp_path: Path, is_other: bool) -> None:
    clean = write_clean(tmp_path / "clean", texts(120), source="a", validation_fraction=0.2)
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", clean)
    shard, out = clean / "a-00000.txt", tmp_path / "packed"
    before = shard.read_bytes()
    after = b"".join(sorted(before.splitlines(keepends=True))) if is_other else before.replace(b"e", b"o")
    engine = Meddling(lambda: shard.write_bytes(after))
    with pytest.raises(InputError, match=r"a-00000\.txt` has changed while it was read") as caught:
        pack(PackConfig(seq_len=16), tokenizer=tokenizer, clean=[clean], out=out, engine=engine, part_bytes=500)
    assert caught.value.hint
    assert not list(out.rglob("*"))
    shard.write_bytes(before)
    packed = pack(PackConfig(seq_len=16), tokenizer=tokenizer, clean=[clean], out=out)
    beside = pack(PackConfig(seq_len=16), tokenizer=tokenizer, clean=[clean], out=tmp_path / "packed2")
    assert [shard.sha256 for shard in packed.shards] == [shard.sha256 for shard in beside.shards]


@pytest.mark.parametrize("name", ["tokens.bin", "text.txt"])
def test_a_file_that_grows_while_it_is_packed_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x01\x00" * 3000 if name == "tokens.bin" else "\n\n".join(texts(60)).encode())
    given = {"foreign_tokens": [path]} if name == "tokens.bin" else {"clean": [path]}

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"\x01\x00")

    text = tmp_path / "for-the-tokenizer.txt"
    text.write_text("\n\n".join(texts(60, seed=1)), encoding="utf-8")
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", text)
    with pytest.raises(InputError, match=f"{name}` has changed"):
        pack(PackConfig(seq_len=16), tokenizer=tokenizer, out=tmp_path / "out", engine=Meddling(grow), **given)  # type: ignore[arg-type]


def test_a_text_that_grows_while_words_are_counted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "text.txt", tmp_path / "tokenizer.json"
    path.write_text("\n\n".join(texts(60)), encoding="utf-8")
    counted = train.count

    def meddle(*given: object, **named: object) -> object:
        result = counted(*given, **named)  # type: ignore[arg-type]
        path.write_text("other", encoding="utf-8")
        return result

    monkeypatch.setattr(train, "count", meddle)
    with pytest.raises(InputError, match=r"text\.txt` has changed"):
        train.train_tokenizer(TokenizerConfig(vocab_size=300), inputs=[path], out=out)
    assert not out.exists()


def test_a_file_that_goes_or_comes_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    absent = Unchanged([path])
    absent.check()
    path.write_text("a")
    with pytest.raises(InputError):
        absent.check()
    there = Unchanged([path])
    path.unlink()
    with pytest.raises(InputError):
        there.check()


def test_no_part_of_other_text_is_kept_when_packing_is_interrupted(tmp_path: Path) -> None:
    clean = write_clean(tmp_path / "clean", texts(120), source="a", validation_fraction=0.2)
    tokenizer, config = write_tokenizer(tmp_path / "tokenizer.json", clean), PackConfig(seq_len=16)
    wanted = pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / "undisturbed", part_bytes=500)
    shard, out = clean / "a-00000.txt", tmp_path / "packed"
    before = shard.read_bytes()

    class Interrupted(Serial):
        def map(self, function, units: Iterable, *, on_event: Listener = ignore) -> Generator:  # type: ignore[no-untyped-def,type-arg,override]
            for number, unit in enumerate(units):
                if number == 1:
                    shard.write_bytes(before.replace(b"e", b"o"))
                try:
                    result = function(unit, on_event)
                except InputError as error:
                    raise KeyboardInterrupt from error
                yield number, result

    with pytest.raises(KeyboardInterrupt):
        pack(config, tokenizer=tokenizer, clean=[clean], out=out, engine=Interrupted(), part_bytes=500)
    shard.write_bytes(before)
    packed = pack(config, tokenizer=tokenizer, clean=[clean], out=out, part_bytes=500)
    assert [shard.sha256 for shard in packed.shards] == [shard.sha256 for shard in wanted.shards]


def test_a_tokenizer_that_is_replaced_while_text_is_packed_is_told(tmp_path: Path) -> None:
    clean = write_clean(tmp_path / "clean", texts(120), source="a", validation_fraction=0.2)
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", clean)

    class Replacing(Serial):
        def map(self, function, units: Iterable, *, on_event: Listener = ignore) -> Generator:  # type: ignore[no-untyped-def,type-arg,override]
            train.train_tokenizer(TokenizerConfig(vocab_size=280), inputs=[clean], out=tokenizer, force=True)
            yield from super().map(function, units, on_event=on_event)

    with pytest.raises(InputError, match=r"tokenizer\.json` has changed"):
        pack(PackConfig(seq_len=16), tokenizer=tokenizer, clean=[clean], out=tmp_path / "out", engine=Replacing())


def test_an_index_that_appears_while_ids_are_packed_is_told(tmp_path: Path) -> None:
    path, text = tmp_path / "tokens.bin", tmp_path / "text.txt"
    path.write_bytes(b"\x01\x00" * 3000)
    text.write_text("\n\n".join(texts(60, seed=1)), encoding="utf-8")
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", text)
    engine = Meddling(lambda: path.with_suffix(".idx").write_bytes(b"MMIDIDX"))
    with pytest.raises(InputError, match=r"tokens\.idx` has changed"):
        pack(PackConfig(seq_len=16), tokenizer=tokenizer, foreign_tokens=[path], out=tmp_path / "out", engine=engine)
