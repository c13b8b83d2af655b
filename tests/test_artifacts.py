"""Metadata is read by one reader: types, ranges, sums, and names that stay inside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import write_packed

from alm import artifacts
from alm.artifacts import ExportMetadata, FileRecord, PackMetadata, SourceMetadata, TokenizerMetadata
from alm.cli.inspect import inspect
from alm.config.commands import command_of
from alm.errors import ArtifactError, InputError
from alm.packing.shards import open_packed
from alm.tokenizers.file import Tokenizer

HASH = "0" * 64
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, its tokenizer and its packed data."""
    root = tmp_path_factory.mktemp("made")
    write_packed(root, documents=300)
    return root


def refusal(path: Path, schema: type[Any], change: Change, folder: Path, *, has_checksum: bool = False) -> str:
    """What the reader says of the metadata at `path` after `change`, with its hash left out like in older files."""
    values = json.loads(path.read_bytes())
    change(values)
    if not has_checksum:
        values.pop(artifacts.CHECKSUM)
    changed = folder / path.name
    changed.write_text(json.dumps(values))
    with pytest.raises(ArtifactError) as caught:
        artifacts.read(changed, schema, hint="run `alm info`")
    assert str(changed) in caught.value.message or str(folder) in caught.value.message
    assert caught.value.hint
    return caught.value.message


def set_to(*keys: Any) -> Change:
    """Put the last of `keys` at the place that the others lead to."""

    def change(values: Any) -> None:
        *way, key, value = keys
        for step in way:
            values = values[step]
        values[key] = value

    return change


def to_validation(values: Any) -> None:
    values["shards"][0]["split"] = "validation"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_to("shards", []), "there are none for training"),
        (to_validation, "not the sum over the shards"),
        (set_to("total_tokens", 7), "`total_tokens`"),
        (set_to("input_tokens", -1), "`input_tokens`"),
        (set_to("tail_tokens", 1 << 60), "`tail_tokens`"),
        (set_to("seq_len", "16"), "`seq_len`: Input should be a valid integer, not '16'"),
        (set_to("seq_len", True), "`seq_len`"),
        (set_to("seq_len", 0), "`seq_len`"),
        (set_to("dtype", "float64"), "`dtype`"),
        (set_to("shards", 0, "sequences", 3), "`shards"),
        (set_to("shards", 0, "padding", 3), "`shards.0.padding`"),
        (set_to("shards", 0, "source", "other"), "is not among the sources"),
        (set_to("shards", 0, "split", "test"), "`shards.0.split`"),
        (set_to("shards", 0, "sha256", "A" * 64), "`shards.0.sha256`"),
        (set_to("shards", 0, "file", "../../precious.txt"), "lies outside"),
        (set_to("shards", 0, "index_file", "/etc/passwd"), "lies outside"),
        (set_to("tokenizer_file", "a\\..\\b"), "lies outside"),
        (set_to("tokenizer_file", "a\0b"), "is not the name of a file"),
        (set_to("shards", 0, "file", "shard_00001.bin"), "twice"),
        (set_to("sources", "s", "train", "stored_tokens", 5), "stored_tokens"),
        (set_to("target_tokens", "train", 5), "target_tokens.train"),
        (set_to("end_of_text_id", 1 << 40), "`vocab_size`"),
        (set_to("inputs", [0] * 100_000), "`inputs.0`"),
        (set_to("sources", dict.fromkeys(map(str, range(20_000)))), "more than 10,000 values"),
        (set_to("format_version", 3), "format version 3"),
        (set_to("format_version", 0), "`format_version`"),
        (set_to("format", "alm-run"), "`format`"),
        (lambda values: values.pop("shards"), "`shards`: Field required"),
    ],
)
def test_packed_metadata_that_does_not_add_up_is_refused(made: Path, tmp_path: Path, change: Change, said: str) -> None:
    assert said in refusal(made / "packed/metadata.json", PackMetadata, change, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_to("documents", "kept", 1), "`documents.input`"),
        (set_to("bytes", "output", 1), "`bytes.output`"),
        (set_to("shards", 0, "documents", 1), "`documents.output`"),
        (set_to("shards", []), "`shards`"),
        (set_to("shards", 0, "bytes", 10), "more than the shards hold"),
        (set_to("shards", 0, "lines_file", None), "`shards.0.lines_file`"),
        (set_to("shards", 0, "lines_file", "/etc/passwd"), "lies outside"),
        (set_to("validation_documents", 10**6), "`validation_documents`"),
        (set_to("source", "other"), "is not a shard of `other`"),
    ],
)
def test_a_corpus_that_does_not_add_up_is_refused(made: Path, tmp_path: Path, change: Change, said: str) -> None:
    assert said in refusal(made / "clean/s.json", SourceMetadata, change, tmp_path)


def test_a_tokenizer_has_a_length_for_each_id(made: Path, tmp_path: Path) -> None:
    change = set_to("bytes_per_id", [1, 2])
    assert "`bytes_per_id`" in refusal(made / "tokenizer.meta.json", TokenizerMetadata, change, tmp_path)


def test_a_number_that_nothing_else_depends_on_has_a_hash(made: Path, tmp_path: Path) -> None:
    """A flipped bit in the count of documents, say."""
    path = made / "tokenizer.meta.json"
    said = refusal(path, TokenizerMetadata, set_to("documents", 4), tmp_path, has_checksum=True)
    assert "has changed since it was written" in said


def test_metadata_of_an_older_alm_has_no_hash_and_is_read(made: Path, tmp_path: Path) -> None:
    values = json.loads((made / "packed/metadata.json").read_bytes())
    del values[artifacts.CHECKSUM]
    (tmp_path / "metadata.json").write_text(json.dumps(values))
    found = artifacts.read(tmp_path / "metadata.json", PackMetadata, hint="")
    assert found == artifacts.read(made / "packed/metadata.json", PackMetadata, hint="")


def test_keys_of_a_later_alm_are_skipped(made: Path, tmp_path: Path) -> None:
    values = json.loads((made / "packed/metadata.json").read_bytes()) | {"later": [1]}
    del values[artifacts.CHECKSUM]
    (tmp_path / "metadata.json").write_text(json.dumps(values))
    artifacts.read(tmp_path / "metadata.json", PackMetadata, hint="")


@pytest.mark.parametrize("name", ["../../precious.txt", "/precious.txt", "C:/x", "a\\b", "", ".", "sub/../../x"])
def test_an_export_names_files_of_its_own_alone(tmp_path: Path, name: str) -> None:
    values = {
        "format": "alm-export",
        "config": {},
        "inputs": [],
        "to": "safetensors",
        "name": "x",
        "step": 1,
        "parameters": 1,
        "tokenizer_sha256": HASH,
        "files": [{"path": name, "bytes": 1, "sha256": HASH}],
    }
    (tmp_path / "export.json").write_text(json.dumps(values))
    with pytest.raises(ArtifactError):
        artifacts.read(tmp_path / "export.json", ExportMetadata, hint="")


def test_a_link_does_not_lead_out_of_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "sub").symlink_to(tmp_path / "away")
    metadata = ExportMetadata(
        config={},
        inputs=(),
        to="x",
        name="x",
        step=1,
        parameters=1,
        tokenizer_sha256=HASH,
        files=(FileRecord(path="sub/precious.txt", bytes=1, sha256=HASH),),
    )
    artifacts.write(tmp_path / "export" / "export.json", metadata)
    with pytest.raises(ArtifactError, match="is a link"):
        artifacts.read(tmp_path / "export" / "export.json", ExportMetadata, hint="")


STRANGE = [
    "rm -rf ~",
    "python x.py",
    "{own}; rm x",
    "{own} $(rm x)",
    "{own} 'x",
    "{own} --force",
    "{own} --ray-address=evil",
    "{own} --out elsewhere",
    "{own} -- x",
    "alm config copy pico --out /root/.bashrc",
    "alm config copy pico --out {out}",
    "alm push --repo me/stolen --out {out}",
    "alm pretrain --out {out}",
    "alm pack --out elsewhere",
    "alm pack --out",
    "alm pack",
    "",
]


@pytest.mark.parametrize("command", STRANGE)
def test_a_command_in_metadata_is_hinted_only_if_it_makes_the_artifact_again(tmp_path: Path, command: str) -> None:
    def proposed(text: str) -> str:
        made = artifacts.Metadata(format="x", config={}, inputs=(), command=text)
        return command_of(made.command, stage=("alm", "pack"), out=tmp_path / "packed", otherwise="fallback")

    own = f"alm pack --in clean --out {tmp_path}/packed"
    assert proposed(own) == own
    text = command.format(own=own, out=tmp_path / "packed")
    # What a shell would do with a word of it, it does not do: the words are quoted again.
    assert proposed(text) in ("fallback", f"alm pack --in clean --out {tmp_path}/packed '$(rm' 'x)'")


def test_a_command_without_a_place_is_for_the_place_that_is_meant_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = artifacts.Metadata(format="x", config={}, inputs=(), command="alm pack --in 'a b' -")
    for out, command in ((Path("data/packed"), "alm pack --in 'a b' -"), (Path("other"), "fallback")):
        assert command_of(made.command, stage=("alm", "pack"), out=out, otherwise="fallback") == command


@pytest.mark.parametrize(
    ("metadata", "payload", "expected"),
    [
        (
            "clean/s.json",
            "clean/s-00000.txt",
            "alm corpus prepare --set sources.s.kind=files --set 'sources.s.paths=[\"{1}\"]' "
            "--only s --out {0}/clean --force",
        ),
        ("tokenizer.meta.json", "tokenizer.json", "alm tokenizer train --out {0}/tokenizer.json --force"),
        ("packed/metadata.json", "packed/shard_00000.bin", "alm pack --out {0}/packed --force"),
    ],
)
@pytest.mark.parametrize("command", ["", "alm corpus prepare", "alm pack", "alm config copy pico --out /root/.bashrc"])
def test_info_proposes_to_make_the_artifact_again_at_its_own_place(
    made: Path, tmp_path: Path, metadata: str, payload: str, expected: str, command: str
) -> None:
    root = tmp_path / "made"
    shutil.copytree(made, root)
    (root / payload).write_bytes(b"damaged")
    values = json.loads((root / metadata).read_bytes()) | {"command": command}
    values.pop(artifacts.CHECKSUM)
    (root / metadata).write_text(json.dumps(values))
    named = root / payload if "tokenizer" in metadata else root / Path(metadata).parent
    texts = json.loads((made / "clean/s.json").read_bytes())["config"]["source"]["paths"][0]
    assert inspect(named).fix == f"run `{expected.format(root, texts)}`"
    (root / metadata).write_bytes((made / metadata).read_bytes()[:60])  # cut behind its format
    with pytest.raises(ArtifactError) as caught:
        inspect(named)
    assert str(caught.value.hint).split("`")[1] == expected.format(root, texts)


def test_a_changed_token_or_index_is_found_where_it_would_be_trained_on(made: Path) -> None:
    shard = made / "packed/shard_00000.bin"
    for path in (shard, shard.with_suffix(".idx")):
        whole = path.read_bytes()
        path.write_bytes(whole[:8] + bytes([whole[8] ^ 1]) + whole[9:])
        with pytest.raises(ArtifactError, match="has changed since it was written"):
            open_packed(made / "packed", is_hashed=True)
        path.write_bytes(whole)
    open_packed(made / "packed", is_hashed=True)


def test_a_tokenizer_that_its_metadata_does_not_know_is_refused(made: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.meta.json"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises((ArtifactError, InputError), match="has changed since it was written"):
        Tokenizer.load(path)
    (tmp_path / "tokenizer.meta.json").unlink()
    Tokenizer.load(path)
