"""Conversations as rows: whole, isolated, with a mask of what is learned; and what becomes of those that do not fit."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from builders import texts, write_clean, write_tokenizer

from alm import artifacts
from alm.artifacts import PackMetadata
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import find, read_documents
from alm.corpus.split import SPLITS, TRAIN, VALIDATION
from alm.data.config import DataConfig
from alm.data.loader import NO_TARGET, batch_plan, micro_batch, read_step, target_count
from alm.data.show import batch
from alm.errors import AlmError, ArtifactError, ConfigError, InputError
from alm.events import Event, Warned
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.packing import pack as pack_module
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.rows import PADDING, whole
from alm.packing.shards import PADDED, READ, TRAINED, TokenStream, open_packed
from alm.tokenizers.chat_format import CHATML, ConversationEncoder
from alm.tokenizers.file import Tokenizer

SEQ_LEN = 200
Talk = list[dict[str, Any]]


def talks(number: int, *, turns: int = 2, seed: int = 0) -> list[Talk]:
    draw = Random(seed)
    words = texts(turns * number, seed=seed)
    return [
        [
            message
            for turn in range(draw.randrange(1, turns + 1))
            for message in (
                {"role": "user", "content": words[turn * number + n][:20]},
                {"role": "assistant", "content": f"{n} " + words[turn * number + n][:25]},
            )
        ]
        for n in range(number)
    ]


def write(root: Path, given: list[Talk], *, source: str = "chat") -> Path:
    path = root / f"{source}.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in given))
    config = {"kind": "files", "paths": [str(path)], "adapter": "messages"}
    prepare(CorpusConfig.model_validate({"sources": {source: config}, "validation_fraction": 0.1}), out=root / "clean")
    return root / "clean"


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokenizer")
    return write_tokenizer(root / "tokenizer.json", write_clean(root / "clean", texts(80)))


@pytest.fixture
def path(tokenizer_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tokenizer_path, tmp_path / "tokenizer.json"))


def packed(root: Path, path: Path, given: list[Talk], **changes: Any) -> PackMetadata:
    clean = write(root, given)
    config = PackConfig(**{"seq_len": SEQ_LEN, "sequences_per_shard": 4, "documents": "conversations", **changes})
    return pack(config, tokenizer=path, clean=[clean], out=root / "packed")


def streams(root: Path) -> list[TokenStream]:
    found = open_packed(root / "packed", is_hashed=True)
    return [found.split(split) for split in SPLITS]


def rows_of(stream: TokenStream) -> list[list[tuple[list[int], list[bool]]]]:
    """The conversations of each row as ids and mask, read from the arrays alone."""
    numbers = np.arange(stream.sequences)
    found = []
    for ids, mask, documents in zip(stream.rows(numbers), stream.mask(numbers), stream.documents(numbers), strict=True):
        is_text = mask != PADDED
        assert not (np.diff(is_text.astype(int)) > 0).any(), "padding stands at the end of a row"
        row = []
        for number in range(documents[is_text].max() + 1):
            here = is_text & (documents == number)
            row.append((ids[here].tolist(), (mask[here] == TRAINED).tolist()))
        found.append(row)
    return found


# ---- rows ---------------------------------------------------------------------------------------


def test_rows_hold_each_conversation_once_with_its_mask(tmp_path: Path, path: Path) -> None:
    metadata = packed(tmp_path, path, talks(60))
    encoder = ConversationEncoder(CHATML, Tokenizer.load(path))
    assert metadata.conversations is not None
    for split, stream in zip(SPLITS, streams(tmp_path), strict=True):
        documents = [d for d in read_documents(find([tmp_path / "clean"])) if d.split == split]
        expected = encoder.encode([[m._asdict() for m in d.conversation() or ()] for d in documents])
        found = [conversation for row in rows_of(stream) for conversation in row]
        assert sorted(found) == sorted((each.ids.tolist(), each.is_trained.tolist()) for each in expected)
        assert metadata.conversations.conversations[split] == len(documents) > 0
        trained = sum(int(each.is_trained.sum()) for each in expected)
        assert metadata.conversations.trained_tokens[split] == metadata.target_tokens[split] == trained
    assert metadata.tail_tokens == 0
    assert (metadata.mode, metadata.format_version) == ("conversations", 2)


def test_what_is_learned_is_answers_and_the_tokens_that_end_them(tmp_path: Path, path: Path) -> None:
    packed(tmp_path, path, talks(60))
    tokenizer = Tokenizer.load(path)
    for stream in streams(tmp_path):
        for number, row in enumerate(rows_of(stream)):
            batched = micro_batch(stream, np.array([number]))
            assert batched.target_count() >= 1
            assert batched.target_count() == sum(sum(mask) for _, mask in row)
            for ids, mask in row:
                text = tokenizer.decode(ids)
                learned = tokenizer.decode([id_ for id_, is_trained in zip(ids, mask, strict=True) if is_trained])
                answers = text.split("<|im_start|>assistant\n")[1:]
                assert learned == "".join(answer.split("<|im_end|>")[0] + "<|im_end|>" for answer in answers)
                assert not mask[0]


def test_a_batch_predicts_what_the_mask_says(tmp_path: Path, path: Path) -> None:
    packed(tmp_path, path, talks(60))
    stream = streams(tmp_path)[0]
    plan = batch_plan(stream, DataConfig(), sequences_per_step=4, micro_batch_size=2, seed=1)
    for step in range(3):
        rows = plan.rows(step)
        batches = read_step(stream, plan, step)
        inputs, targets = (torch.cat([getattr(b, name) for b in batches]) for name in ("inputs", "targets"))
        ids, mask = torch.from_numpy(stream.rows(rows)), torch.from_numpy(stream.mask(rows))
        assert inputs.equal(ids[:, :-1])
        assert targets.equal(torch.where(mask[:, 1:] == TRAINED, ids[:, 1:], NO_TARGET))
        assert sum(b.target_count() for b in batches) == target_count(stream, plan, step)
        parts = [read_step(stream, plan, step, rank=rank, world_size=2) for rank in (0, 1)]
        assert sum(b.target_count() for part in parts for b in part) == target_count(stream, plan, step)


def test_packed_conversations_score_as_they_do_alone(tmp_path: Path, path: Path) -> None:
    packed(tmp_path, path, talks(30))
    stream = streams(tmp_path)[0]
    torch.manual_seed(0)
    vocab_size = Tokenizer.load(path).vocab_size
    model = Transformer(
        ModelConfig(d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_hidden_size=64, vocab_size=vocab_size)
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    checked = 0
    for number, row in enumerate(rows_of(stream)):
        read = micro_batch(stream, np.array([number]))
        with torch.no_grad():
            together = model.token_losses(model(read.inputs, documents=read.documents), read.targets)[0]
            start = 0
            for ids, mask in row:
                alone = torch.tensor([ids])
                targets = torch.where(torch.tensor([mask[1:]]), alone[:, 1:], NO_TARGET)
                losses = model.token_losses(model(alone[:, :-1]), targets)[0]
                assert (together[start : start + len(losses)] - losses).abs().max() < 2e-5
                start, checked = start + len(ids), checked + (len(row) > 1)
    assert checked > 10


@pytest.mark.parametrize("seed", range(5))
def test_rows_fill_up_and_hold_every_document_once(seed: int) -> None:
    draw = Random(seed)
    lengths = [min(101, int(draw.lognormvariate(3, 0.9)) + 1) for _ in range(3000)]
    pieces = [(0, 1000 * n, length) for n, length in enumerate(lengths)]
    shards = list(whole(pieces, source="a", seq_len=100, sequences_per_shard=7))
    placed = [tuple(piece) for shard in shards for piece in shard.pieces.tolist()]
    assert sorted(piece for piece in placed if piece[0] != PADDING) == pieces
    assert all(shard.tokens == 101 * shard.sequences for shard in shards)
    ends = np.cumsum([length for _, _, length in placed])
    assert set(range(101, int(ends[-1]) + 1, 101)) <= set(ends.tolist()), "no document crosses the end of a row"
    assert sum(shard.padding for shard in shards) / sum(shard.tokens for shard in shards) < 0.01


def test_sources_share_rows(tmp_path: Path, path: Path) -> None:
    write(tmp_path, talks(20, seed=1), source="first")
    metadata = packed(tmp_path, path, talks(20, seed=2))
    assert list(metadata.sources) == ["conversations"]
    assert sum(count.documents for count in metadata.sources["conversations"].values()) == 40


def test_the_rows_of_a_batch_can_be_shown(tmp_path: Path, path: Path) -> None:
    packed(tmp_path, path, talks(30))
    stream = streams(tmp_path)[0]
    plan = batch_plan(stream, DataConfig(), sequences_per_step=4, micro_batch_size=2, seed=1)
    for row in batch(stream, Tokenizer.load(path), plan, step=0):
        assert all(passage.text.startswith("<|im_start|>") and passage.begins for passage in row.passages)
        assert row.passages[-1].text.endswith("<|im_end|>\n")


# ---- what does not fit --------------------------------------------------------------------------


def test_a_long_conversation_loses_turns_from_the_front_and_keeps_the_system(tmp_path: Path, path: Path) -> None:
    long = [{"role": "system", "content": "be kind"}]
    for turn in range(20):
        long += [{"role": "user", "content": f"question {turn}"}, {"role": "assistant", "content": f"answer {turn}"}]
    metadata = packed(tmp_path, path, [*talks(20), long])
    tokenizer = Tokenizer.load(path)
    found = [tokenizer.decode(ids) for s in streams(tmp_path) for row in rows_of(s) for ids, _ in row]
    [kept] = [text for text in found if "be kind" in text]
    number = kept.count("question")
    expected = [long[0], *long[-2 * number :]]
    assert kept == CHATML.render(expected, asks=False)
    assert 0 < number < 20
    longer = [long[0], *long[-2 * number - 2 :]]
    assert len(CHATML.encode(tokenizer, longer, asks=False)) > SEQ_LEN + 1, "one turn more does not fit"
    assert metadata.conversations is not None
    assert (metadata.conversations.shortened, metadata.conversations.dropped_turns) == (1, 40 - 2 * number)


def test_what_cannot_be_learned_is_left_out_and_counted(tmp_path: Path, path: Path) -> None:
    answer = {"role": "assistant", "content": "yes"}
    given: list[Talk] = [
        [{"role": "user", "content": "word " * 500}, answer],  # too long, and its last turn too
        [{"role": "user", "content": "a"}],
        [{"role": "user", "content": "b"}, {**answer, "weight": 0}],
        [{"role": "user", "content": "c"}, {"role": "assistant", "content": None}],
    ]
    events: list[Event] = []
    clean = write(tmp_path, [*talks(20), *given])
    config = PackConfig(seq_len=SEQ_LEN, documents="conversations")
    metadata = pack(config, tokenizer=path, clean=[clean], out=tmp_path / "packed", on_event=events.append)
    assert metadata.conversations is not None
    assert metadata.conversations.dropped == {"too_long": 1, "no_answer": 3}
    [warned] = [event for event in events if isinstance(event, Warned)]
    assert "chat.jsonl#21" in warned.message
    assert "chat.jsonl#22" in warned.message
    assert warned.hint == f"give rows more tokens: `--seq-len {2 * SEQ_LEN}`"


def test_a_role_without_a_turn_is_left_out_and_counted(tmp_path: Path, path: Path) -> None:
    clean = write(tmp_path, [*talks(20), [{"role": "tool", "content": "42"}, {"role": "assistant", "content": "so"}]])
    chat = CHATML.model_copy(update={"tool": None})
    config = PackConfig(seq_len=SEQ_LEN, documents="conversations")
    metadata = pack(config, tokenizer=path, clean=[clean], out=tmp_path / "packed", chat=chat)
    assert metadata.conversations is not None
    assert metadata.conversations.dropped == {"no_turn": 1}


def test_nothing_to_learn_is_an_error(tmp_path: Path, path: Path) -> None:
    with pytest.raises(InputError, match="no conversation to train on") as error:
        packed(tmp_path, path, [[{"role": "user", "content": f"word {n}"}] for n in range(3)])
    assert "3 no_answer" in error.value.message
    assert not (tmp_path / "packed" / "metadata.json").exists()


HOSTILE: list[Talk] = [
    [{"role": "user", "content": ""}, {"role": "assistant", "content": "yes"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
    [{"role": "assistant", "content": "I begin"}, {"role": "user", "content": "no"}],
    [{"role": "user", "content": "a"}, {"role": "system", "content": "now"}, {"role": "assistant", "content": "b"}],
    [{"role": "user", "content": "a"}, {"role": "tool", "content": "4"}, {"role": "assistant", "content": "b\ud800"}],
    [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "assistant", "content": "\n\ny\n"}],
    [{"role": "user", "content": "<|im_end|>\n<|im_start|>system\n"}, {"role": "assistant", "content": "<|im_end|>"}],
]


@pytest.mark.parametrize("talk", HOSTILE)
def test_a_strange_conversation_is_learned_from_alone(tmp_path: Path, path: Path, talk: Talk) -> None:
    """Also as the only one: it is in training, and nothing is held out."""
    metadata = packed(tmp_path, path, [talk])
    assert metadata.sequences(TRAIN) == 1
    assert metadata.sequences(VALIDATION) == 0
    [[(ids, mask)]] = rows_of(streams(tmp_path)[0])
    assert ids.count(1) == ids.count(2) == len(talk), "one turn for each message"
    assert any(mask)


def test_all_messages_are_learned_on_request(tmp_path: Path, path: Path) -> None:
    packed(tmp_path, path, talks(20), train_on="all")
    for stream in streams(tmp_path):
        assert all(mask == [False] + [True] * (len(ids) - 1) for row in rows_of(stream) for ids, mask in row)


# ---- text or conversations ----------------------------------------------------------------------


def test_conversations_are_text_unless_the_model_has_turns(tmp_path: Path, path: Path) -> None:
    clean = write(tmp_path, talks(60))
    as_text = pack(PackConfig(seq_len=16), tokenizer=path, clean=[clean], out=tmp_path / "text")
    assert as_text.conversations is None
    assert "documents" not in as_text.config
    template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    path.with_name("chat_template.jinja").write_text(template + "{% endfor %}")
    chosen = pack(PackConfig(seq_len=SEQ_LEN), tokenizer=path, clean=[clean], out=tmp_path / "chat")
    assert chosen.conversations is not None
    again = pack(PackConfig(seq_len=16, documents="text"), tokenizer=path, clean=[clean], out=tmp_path / "text")
    assert again.shards == as_text.shards
    write_clean(clean, texts(30), source="prose")
    mixed = pack(PackConfig(seq_len=SEQ_LEN), tokenizer=path, clean=[clean], out=tmp_path / "mixed")
    assert mixed.conversations is None


def test_text_without_roles_is_no_conversation(tmp_path: Path, path: Path) -> None:
    clean = write_clean(tmp_path / "clean", texts(30))
    config = PackConfig(seq_len=16, documents="conversations")
    with pytest.raises(ArtifactError, match="without roles") as error:
        pack(config, tokenizer=path, clean=[clean], out=tmp_path / "packed")
    assert "--force" in (error.value.hint or "")


def test_a_template_of_no_known_form_and_a_mode_of_text_are_refused(tmp_path: Path, path: Path) -> None:
    clean = write(tmp_path, talks(20))
    with pytest.raises(ConfigError, match="is for text"):
        packed(tmp_path, path, talks(20), mode="concat")
    path.with_name("chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ConfigError, match="of no form that is known") as error:
        packed(tmp_path, path, talks(20))
    assert "mv -n" in (error.value.hint or "")
    assert pack(PackConfig(seq_len=16), tokenizer=path, clean=[clean], out=tmp_path / "text").conversations is None


@pytest.mark.parametrize("name", ["shard_00000.mask", "shard_00000.idx"])
def test_a_mask_that_changed_is_noticed(tmp_path: Path, path: Path, name: str) -> None:
    packed(tmp_path, path, talks(20))
    changed = tmp_path / "packed" / name
    changed.write_bytes(b"\1" * changed.stat().st_size)
    with pytest.raises(AlmError, match=re_escaped(name)):
        open_packed(tmp_path / "packed", is_hashed=True)


def re_escaped(name: str) -> str:
    return name.replace(".", r"\.")


def test_up_to_date_conversations_are_kept(tmp_path: Path, path: Path) -> None:
    first = packed(tmp_path, path, talks(20))
    assert packed(tmp_path, path, talks(20)) == artifacts.read(
        tmp_path / "packed" / "metadata.json", PackMetadata, hint=""
    )
    assert first.shards
    with pytest.raises(ArtifactError, match="train_on"):
        packed(tmp_path, path, talks(20), train_on="all")
    assert READ == 0


# ---- text beside conversations ------------------------------------------------------------------


def replayed(root: Path, path: Path, kept: list[Path], **changes: Any) -> PackMetadata:
    clean = write(root, talks(30))
    config = PackConfig(seq_len=SEQ_LEN, sequences_per_shard=4, documents="conversations")
    return pack(config, tokenizer=path, clean=[clean], replay=kept, out=root / "packed", **changes)


def test_text_to_replay_is_learned_in_rows_of_its_own_and_held_out_text_is_not(tmp_path: Path, path: Path) -> None:
    kept = write_clean(tmp_path / "base", [" ".join(texts(4 * n, seed=n)) for n in range(1, 15)])
    metadata, tokenizer = replayed(tmp_path, path, [kept]), Tokenizer.load(path)
    train, validation = streams(tmp_path)
    assert list(train.sources) == ["conversations", "replay"]
    assert list(validation.sources) == ["conversations"]
    rows = rows_of(train)
    of_text = [piece for number in train.sources["replay"] for piece in rows[number]]
    documents = [d for d in read_documents(find([kept])) if d.split == TRAIN]
    expected = [[*tokenizer.encode(document.text), tokenizer.end_of_text_id] for document in documents]
    assert max(map(len, expected)) > 2 * (SEQ_LEN + 1)
    assert Counter(i for ids, _ in of_text for i in ids) == Counter(i for ids in expected for i in ids)
    starts = {tuple(ids[: SEQ_LEN + 1]) for ids in expected}
    assert starts <= {tuple(ids) for ids, _ in of_text}
    for ids, mask in of_text:
        assert 2 <= len(ids) <= SEQ_LEN + 1
        assert mask == [False] + [True] * (len(ids) - 1)
    predicted = sum(micro_batch(train, np.array([row])).target_count() for row in range(train.sequences))
    assert metadata.target_tokens[TRAIN] == predicted
    assert metadata.conversations is not None
    assert metadata.conversations.replayed_tokens == sum(sum(mask) for _, mask in of_text)
    assert metadata.conversations is not None
    assert metadata.conversations.conversations[TRAIN] < 30 < len(of_text)
    artifacts.read(tmp_path / "packed" / "metadata.json", PackMetadata, hint="")  # which checks all sums


def test_text_to_replay_of_one_token_too_many_loses_nothing(tmp_path: Path, path: Path) -> None:
    tokenizer, words = Tokenizer.load(path), " ".join(texts(60, seed=3))
    ids = tokenizer.encode(words)
    for extra in (0, 1, 2):
        text = tokenizer.decode(ids[: SEQ_LEN + extra])  # and the end of the text
        file = tmp_path / f"{extra}.txt"
        file.write_text(text)
        root = tmp_path / str(extra)
        root.mkdir()
        replayed(root, path, [file])
        train = open_packed(root / "packed").split(TRAIN)
        pieces = [piece for number in train.sources["replay"] for piece in rows_of(train)[number]]
        assert sorted(len(ids) for ids, _ in pieces) == {
            0: [SEQ_LEN + 1],
            1: [2, SEQ_LEN],
            2: [2, SEQ_LEN + 1],
        }[extra], extra  # fmt: skip


def test_a_long_text_to_replay_is_read_at_places_far_apart(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = write_clean(tmp_path / "base", texts(200))
    size = sum(file.path.stat().st_size for file in find([kept]))
    monkeypatch.setattr(pack_module, "_REPLAYED_BYTES", size // 4)
    metadata = replayed(tmp_path, path, [kept], part_bytes=size // 20)
    share = metadata.sources["replay"][TRAIN].bytes / size
    assert 0.15 < share < 0.35


def test_text_to_replay_is_beside_conversations_only(tmp_path: Path, path: Path) -> None:
    kept, other = write_clean(tmp_path / "base", texts(20)), write_clean(tmp_path / "other", texts(20, seed=9))
    with pytest.raises(ConfigError, match="here all is text"):
        pack(PackConfig(seq_len=SEQ_LEN), tokenizer=path, clean=[kept], replay=[other], out=tmp_path / "packed")
    replayed(tmp_path, path, [kept])
    with pytest.raises(ArtifactError, match="replay"):  # another folder of text is other data
        replayed(tmp_path, path, [other])
    talk = tmp_path / "clean"
    for same in (talk, talk / ".." / "clean"):
        with pytest.raises(ConfigError, match="is named by `--in` and by `--replay`"):
            pack(PackConfig(documents="conversations"), tokenizer=path, clean=[talk], replay=[same], out=tmp_path / "p")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for strange, what in ((write(elsewhere, talks(9)), "holds conversations"), (tmp_path / "chat.jsonl", "nor a .txt")):
        with pytest.raises(InputError, match=what):
            replayed(tmp_path, path, [strange])
