"""More shards than a process may have files open, or areas of memory mapped, are read like one."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from builders import write_packed

from alm import artifacts, files
from alm.artifacts import PackedShard, PackMetadata
from alm.cli.main import main
from alm.errors import InputError
from alm.packing import mapping
from alm.packing.mapping import Unmapped, arrays, mapped
from alm.packing.shards import METADATA_NAME, TokenStream, open_packed

WIDTH = np.dtype("<u4")
MANY, FEW = 300, 100  # shards, and the files that may be opened


def cut_up(folder: Path, count: int) -> Path:
    """The training text of `folder` in `count` shards: the same stream, with as many rows."""
    packed = open_packed(folder)
    stream = packed.split("train")
    ids = np.concatenate([np.fromfile(folder / shard.file, dtype=WIDTH) for shard in stream.shards])
    starts = stream.document_starts()
    assert len(ids) > count
    cuts = np.linspace(0, len(ids), count + 1).astype(np.int64).tolist()
    shards = []
    for number, (begin, end) in enumerate(pairwise(cuts)):
        name = f"cut_{number:05d}"
        ids[begin:end].tofile(folder / f"{name}.bin")
        (starts[(starts >= begin) & (starts < end)] - begin).tofile(folder / f"{name}.idx")
        rows = min(-(-end // stream.stride), stream.sequences) - min(-(-begin // stream.stride), stream.sequences)
        changes = {
            "file": f"{name}.bin",
            "index_file": f"{name}.idx",
            "sequences": rows,
            "tokens": end - begin,
            "sha256": files.sha256(folder / f"{name}.bin"),
            "index_sha256": files.sha256(folder / f"{name}.idx"),
        }
        shards.append(stream.shards[0].model_copy(update=changes))
    others = [one for one in packed.metadata.shards if one.split != "train"]
    artifacts.write(folder / METADATA_NAME, packed.metadata.model_copy(update={"shards": (*shards, *others)}))
    return folder


def descriptors() -> int:
    """How many this process has, where it can be known."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def all_of(folder: Path) -> str:
    """A hash of all that is read of the training text."""
    stream = open_packed(folder).split("train")
    rows = stream.rows(np.random.default_rng(0).permutation(stream.sequences))
    starts = [stream.starts(row).tolist() for row in range(0, stream.sequences, 50)]
    return sha256(rows.tobytes() + stream.document_starts().tobytes() + str(starts).encode()).hexdigest()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of many shards, and what is read of them where they are few."""
    folder, _ = write_packed(tmp_path_factory.mktemp("many"))
    expected = all_of(folder)
    return cut_up(folder, MANY), expected


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_many_shards_are_read_with_few_files(many: tuple[Path, str], few_files: Callable[[int], None]) -> None:
    folder, expected = many
    few_files(FEW)
    assert all_of(folder) == expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_many_shards_are_trained_on_with_few_files(
    many: tuple[Path, str], tmp_path: Path, few_files: Callable[[int], None]
) -> None:
    folder, _ = many
    sizes = [
        "model.d_model=16",
        "model.n_layers=1",
        "model.n_heads=2",
        "model.n_kv_heads=1",
        "model.ffn_hidden_size=16",
    ]
    steps = ["training.max_steps=2", "training.micro_batch_size=2", "training.precision=fp32", "samples.count=1"]
    settings = [word for setting in (*sizes, *steps) for word in ("--set", setting)]
    common = ["--data", str(folder), "--device", "cpu", *settings]
    few_files(FEW)
    for command in (["pretrain", "--out", str(tmp_path / "run")], ["plan"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, *common])
        assert not ended.value.code, command


def test_what_cannot_be_mapped_is_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cut_up(write_packed(tmp_path)[0], 20)
    rows = np.arange(open_packed(folder).split("train").sequences)
    wanted = open_packed(folder).split("train").rows(rows)
    monkeypatch.setattr(mapping, "_MOST_MAPPED", 7)
    stream = open_packed(folder).split("train")
    assert [type(array) for array in stream._arrays] == [np.ndarray] * 7 + [Unmapped] * 13
    assert np.array_equal(stream.rows(rows), wanted)
    monkeypatch.setattr(mapping, "mapped", lambda path, dtype: None)
    assert np.array_equal(open_packed(folder).split("train").rows(rows), wanted)


def test_a_mapped_array_outlives_its_file_and_keeps_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    np.arange(5000, dtype=WIDTH).tofile(path)
    open_before = descriptors()
    array = mapped(path, dtype=WIDTH)
    assert array is not None
    assert descriptors() == open_before
    part = array[4000:4003]
    del array
    gc.collect()
    assert part.tolist() == [4000, 4001, 4002]
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1
    if sys.platform == "linux":
        assert str(path) in Path("/proc/self/maps").read_text()
        del part
        gc.collect()
        assert str(path) not in Path("/proc/self/maps").read_text()


def test_no_file_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert len(arrays([tmp_path / "empty"], dtype=WIDTH)[0][0:5]) == 0
    with pytest.raises(InputError, match="does not exist"):
        mapped(tmp_path / "none", dtype=WIDTH)
    with pytest.raises(InputError, match="does not exist"):
        Unmapped(tmp_path / "none", WIDTH)[0:1]


def test_the_starts_of_a_row_come_from_the_shards_that_hold_it(tmp_path: Path) -> None:
    folder, metadata = write_packed(tmp_path)
    assert isinstance(metadata, PackMetadata)
    whole = open_packed(folder).split("train")
    wanted = [whole.starts(row).tolist() for row in range(whole.sequences)]
    stream: TokenStream = open_packed(cut_up(folder, 300)).split("train")
    assert isinstance(stream.shards[0], PackedShard)
    assert [stream.starts(row).tolist() for row in range(stream.sequences)] == wanted
