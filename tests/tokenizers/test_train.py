"""The stage: the same file however the work is shared out, and nothing half written."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from builders import texts

from alm.corpus.read import find
from alm.errors import ArtifactError
from alm.events import Event, Progressed
from alm.files import sha256
from alm.tokenizers import count as counting
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.train import metadata_path, train_tokenizer
from alm.tokenizers.words import Words

DOCUMENTS = [*texts(300), "x" * 5000, "ein Wort größer\n" * 50, "don't 12 don't\n\n\n" * 20]


@pytest.fixture
def clean(tmp_path: Path) -> list[Path]:
    """Foreign text in several files, one of them compressed, one empty."""
    for number in range(4):
        text = "\n<|endoftext|>\n".join(DOCUMENTS[number::4])
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8", newline="")
    packed = tmp_path / "4.txt.gz"
    packed.write_bytes(gzip.compress("\n".join(DOCUMENTS).encode()))
    (tmp_path / "5.txt").touch()
    return sorted(tmp_path.glob("*.txt*"))


def config(**model: object) -> TokenizerConfig:
    return TokenizerConfig.model_validate({"model": {"kind": "bpe", **model}, "vocab_size": 400})


@pytest.mark.parametrize("way", ["plain", "compiled"], indirect=True)
def test_words_documents_and_bytes_add_up(clean: list[Path], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_BATCH_CHARACTERS", 500)
    whole = "\n".join(DOCUMENTS)
    for workers in (1, 2, 5):
        events: list[Event] = []
        counted = counting.count(find(clean), "qwen2", workers=workers, on_event=events.append)
        expected = Words.of(count_words([*DOCUMENTS, whole], "qwen2"))
        assert dict(counted.words) == dict(expected)
        assert counted.documents == len(DOCUMENTS) + 1
        assert counted.bytes == sum(len(text.encode()) for text in [*DOCUMENTS, whole])
        assert counted.bytes == sum(len(word) * many for word, many in counted.words)
        done = [event.done for event in events if isinstance(event, Progressed)]
        assert done == sorted(done)
        assert done[-1] == counted.documents


@pytest.mark.parametrize("byte_handling", ["bytes", "fallback"])
def test_the_file_does_not_depend_on_the_way(
    clean: list[Path], byte_handling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_BATCH_CHARACTERS", 2000)
    made = set()
    for way, workers in (("never", 1), ("always", 1), ("always", 2), ("always", 3)):
        monkeypatch.setenv("ALM_KERNELS", way)
        out = tmp_path / f"{way}-{workers}" / "tokenizer.json"
        train_tokenizer(config(byte_handling=byte_handling), inputs=clean, out=out, workers=workers)
        made.add(out.read_bytes())
    assert len(made) == 1


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("task", ["counting words", "merges"])
def test_an_interrupt_leaves_what_was_there(clean: list[Path], workers: int, task: str, tmp_path: Path) -> None:
    out = tmp_path / "artifacts" / "tokenizer.json"
    train_tokenizer(config(), inputs=clean, out=out)
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}

    def interrupt(event: Event) -> None:
        if isinstance(event, Progressed) and event.task == task:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(config(pattern="gpt2"), inputs=clean, out=out, workers=workers, force=True, on_event=interrupt)
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before
    assert metadata_path(out).name in before


def test_a_removed_tokenizer_is_trained_without_force(clean: list[Path], tmp_path: Path) -> None:
    """Metadata alone is nothing to overwrite, whatever it was made from."""
    out = tmp_path / "made" / "tokenizer.json"
    train_tokenizer(config(), inputs=clean[:1], out=out)
    out.unlink()
    made = train_tokenizer(config(), inputs=clean[1:2], out=out)
    assert made.file.sha256 == sha256(out)
    with pytest.raises(ArtifactError, match="was made from other inputs"):
        train_tokenizer(config(), inputs=clean[:1], out=out)
