"""Checkpoints of strangers: each is refused in a sentence, or gives the very weights of the one it was made from."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import os
import pickle
import random
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_MODEL

from alm import artifacts, available, files
from alm.checkpoint.format import Checkpoint
from alm.checkpoint.load import load_checkpoint, read_metadata, verify
from alm.checkpoint.save import save_checkpoint
from alm.cli.inspect import inspect
from alm.device import choose
from alm.doctor.checkpoints import same
from alm.errors import AlmError, ArtifactError
from alm.export.source import load_source
from alm.generation.load import load_model
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.model.weights import shapes_of
from alm.tokenizers.file import Tokenizer
from alm.training.average import WeightAverage
from alm.training.config import RunConfig
from alm.training.run.initial import InitialWeights, load_initial_
from alm.training.state import TrainState, init_state, restore_, snapshot

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*prototype stage.*:UserWarning", "ignore:.*deprecated.*:UserWarning", "ignore:Sparse:UserWarning"
)

NAME = "ckpt-step000003.pt"
ROOM = 1 << 30  # that a stranger may make us ask for: far more than a file of 20 kB needs
TABLE, GAIN, MATRIX = "model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"
TOKENIZER = Tokenizer.from_merges([])
CONFIG = RunConfig.model_validate(
    {
        "model": {**TINY_MODEL, "vocab_size": TOKENIZER.vocab_size},
        "training": {"precision": "fp32", "threads": 1, "compile": False, "max_steps": 9},
        "optim": {"kind": "adamw"},
        "scheduler": {"kind": "cosine", "warmup_steps": 1},
    }
)
CPU = choose("cpu", precision="fp32")
Values = dict[str, Any]
Change = Callable[[Values], object]


def trained() -> TrainState:
    """A state whose optimizer has moments."""
    state = init_state(CONFIG, CPU)
    for _ in range(3):
        for parameter in state.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        state.optimizer.step()
        state.step += 1
    return state


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its tokenizer, as training leaves it where weights are averaged."""
    folder = tmp_path_factory.mktemp("genuine")
    TOKENIZER.save(folder / "tokenizer.json")
    state = trained()
    state.average = WeightAverage(state.model.parameters(), share=0.1)
    state.average.update(1)
    made = snapshot(state, CONFIG, environment={"torch": "2"}, tokenizer_sha256=TOKENIZER.sha256, data_sha256="d" * 64)
    return save_checkpoint(made, folder)


@pytest.fixture(scope="module", autouse=True)
def _bounded() -> Iterator[None]:
    """No memory beyond `ROOM`: whoever asks for more gets a MemoryError, which is not an AlmError."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here outlives a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@functools.cache
def values_of(path: Path) -> Values:
    found: Values = torch.load(path, weights_only=True)
    return found


def placed(folder: Path, data: bytes, genuine: Path) -> Path:
    """`data` as a checkpoint whose metadata vouches for it, beside the tokenizer."""
    path = folder / NAME
    path.write_bytes(data)
    written = read_metadata(genuine.with_suffix(".json"))
    changed = written.model_copy(update={"bytes": len(data), "sha256": files.sha256(path)})
    artifacts.write(path.with_suffix(".json"), changed)
    (folder / "tokenizer.json").write_bytes((genuine.parent / "tokenizer.json").read_bytes())
    return path


def sampled(path: Path) -> Values:
    return dict(load_model(path, device_name="cpu").model.state_dict())


def exported(path: Path) -> Values:
    return load_source(path).weights


def begun(path: Path) -> Values:
    model = Transformer(CONFIG.model)
    load_initial_(model, InitialWeights(path, verify(path).sha256))
    return dict(model.state_dict())


@functools.cache
def training() -> TrainState:
    """One for all, as each resume replaces everything."""
    return init_state(CONFIG, CPU)


def resumed(path: Path) -> Values:
    state = training()
    restore_(state, load_checkpoint(path, step=verify(path).step), CPU)
    return copy.deepcopy({**state.model.state_dict(), "optimizer": state.optimizer.state_dict()})


def informed(path: Path) -> Values:
    json.dumps(inspect(path).values(), allow_nan=False)
    return load_checkpoint(path).model


def loaded(path: Path) -> Values:
    return load_checkpoint(path).model


READERS = (loaded, informed, sampled, exported, begun, resumed)


@functools.cache
def read_genuine(read: Callable[[Path], Values], genuine: Path) -> Values:
    return copy.deepcopy(read(genuine))


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """An exception in here says of which input it is."""
    try:
        yield
    except Exception as error:
        error.add_note(f"of {what}")
        raise


def check_read(path: Path, genuine: Path, *, all_readers: bool = True) -> list[str]:
    """What each reader said; one that read it gave the same as the genuine one.

    One stands for `all_readers` where it refuses: they load through the same function.
    """
    refusals: list[str] = []
    codes: list[int] = []
    for read in READERS:
        if refusals and not all_readers:
            break
        try:
            found = read(path)
        except AlmError as error:
            refusals.append(error.message)
            codes.append(error.exit_code)
            continue
        assert same(found, read_genuine(read, genuine)), read.__name__
    assert set(codes) <= {1, 2}
    assert all(0 < len(message) < 2000 and "weights_only" not in message for message in refusals)
    return refusals


def grown(value: Any) -> Any:
    """`value` with dictionaries and lists of its own, and the same tensors."""
    if isinstance(value, dict):
        return {key: grown(item) for key, item in value.items()}
    return [grown(item) for item in value] if isinstance(value, list) else value


def saved(values: object) -> bytes:
    file = io.BytesIO()
    torch.save(values, file)
    return file.getvalue()


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


FIELDS = (
    "format", "format_version", "step", "samples_seen", "model", "optimizer", "rng", "config", "environment",
    "tokenizer_sha256", "data_sha256", "skipped_steps", "skipped_in_row", "loss_scaler", "trained",
)  # fmt: skip
OF_EACH_TYPE = ("format_version", "model", "optimizer", "rng", "config", "environment", "data_sha256", "trained")
EVIL: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "true": lambda: True,
    "minus": lambda: -1,
    "large": lambda: 2**53,
    "huge": lambda: 2**62,
    "enormous": lambda: 10**4000,
    "nan": lambda: float("nan"),
    "1e308": lambda: 1e308,
    "text": lambda: "\x1b]52;c;eA==\x07" * 1000,
    "bytes": lambda: b"abc",
    "list": list,
    "list of lists": lambda: [[], {}],
    "mapping": dict,
    "numbers for keys": lambda: {1: 2, 2**40: "x"},
    "other keys": lambda: {"a": 1, "b": [None]},
    "tensor": lambda: torch.zeros(3),
    "tensors": lambda: {"a": torch.zeros(2, 2)},
    "list of tensors": lambda: [{"cpu": torch.zeros(3)}],
    "long generator": lambda: [{"cpu": torch.zeros(5056, dtype=torch.uint8)}],
    "deep": lambda: nested(300),
    "deeper": lambda: {"model": nested(40)},
    "set": lambda: {1, 2},
}


def change(key: str, value: Any) -> Change:
    """Put `value` at the dotted `key`, a number being the place in a list, or the parameter of an optimizer."""

    def put(values: Values) -> None:
        *path, last = key.split("/")
        node: Any = values
        for part in path:
            node = node[int(part) if part.isdecimal() else part]
        if value is ...:
            del node[int(last) if last.isdecimal() else last]
        else:
            node[int(last) if last.isdecimal() else last] = value

    return put


def field_changes() -> Iterator[tuple[str, Change]]:
    for field in FIELDS:
        for name in EVIL if field in OF_EACH_TYPE else ("none", "minus", "text", "tensor"):
            make = EVIL[name]
            yield f"{field}={name}", lambda values, field=field, make=make: change(field, make())(values)  # type: ignore[misc]
        yield f"{field} missing", change(field, ...)


def config_changes() -> Iterator[tuple[str, Change]]:
    numbers: tuple[Any, ...] = (None, -1, 10**9, 2**62, 1e308, 1e-300, float("inf"), "x", [], {})
    keys = (
        "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "ffn_hidden_size", "vocab_size", "rope_theta",
        "max_position_embeddings", "norm_eps", "positions", "feedforward", "attention", "qk_norm", "value_residual",
        "tie_embeddings", "dropout", "copy_init", "x0_skip", "smear", "unknown",
    )  # fmt: skip
    for key in keys:
        for number in numbers:
            yield f"config.model.{key}={str(number)[:12]}", change(f"config/model/{key}", number)
    for number in (0, 1e-300, 1e300, 10**9, -1):
        scaling = {"method": "yarn", "factor": 2.0, "original_max_position_embeddings": 8, "beta_fast": number}
        for theta in (1.0, 1e-9, 10000.0):
            positions = {"kind": "rope", "scaling": scaling}
            yield (
                f"yarn {number} {theta}",
                lambda values, positions=positions, theta=theta: values["config"]["model"].update(  # type: ignore[misc]
                    positions=positions, rope_theta=theta
                ),
            )
    yield "config.model missing", change("config/model", ...)
    yield "config is deep", change("config/deep", nested(15))
    yield "config has a tensor", change("config/deep", [torch.zeros(2)])
    yield "config has a number for a key", change("config/deep", {3: 4})


class Odd(torch.Tensor):
    """A subclass that nobody but the stranger has."""


def evil_tensors(plain: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What can stand in place of `plain`."""
    wide = torch.zeros(64, *plain.shape)
    return {
        "missing": lambda: ...,
        "none": lambda: None,
        "number": lambda: 1.0,
        "list": lambda: [1.0, 2.0],
        "int64": lambda: plain.long(),
        "uint8": lambda: plain.byte(),
        "bool": lambda: plain.bool(),
        "complex": lambda: plain.to(torch.complex64),
        "double": lambda: plain.double(),
        "float8": lambda: plain.to(torch.float8_e4m3fn),
        "uint16": lambda: torch.zeros(plain.shape, dtype=torch.uint16),
        "sparse": lambda: plain.to_sparse(),
        "compressed rows": lambda: torch.ones(4, 4).to_sparse_csr(),
        "meta": lambda: plain.to("meta"),
        "huge meta": lambda: torch.empty(10**9, 10**6, device="meta"),
        "expanded": lambda: torch.zeros(1).expand(plain.shape),
        "hugely expanded": lambda: torch.zeros(1).expand(10**9, 10**3),
        "expanded rows": lambda: torch.zeros(1, *plain.shape[1:]).expand(10**6, *plain.shape[1:]),
        "turned": lambda: plain.t().contiguous().t() if plain.dim() == 2 else plain[::2],
        "flipped": lambda: plain.flip(0)[:1],
        "wider": lambda: wide,
        "narrower": lambda: plain[:1].clone(),
        "flat": lambda: plain.flatten() if plain.dim() == 2 else plain[None],
        "one number": lambda: torch.tensor(1.0),
        "nothing": lambda: torch.zeros(0),
        "parameter": lambda: torch.nn.Parameter(plain),
        "with a gradient": lambda: plain.clone().requires_grad_(),
        "subclass": lambda: plain.as_subclass(Odd),
        "negative": lambda: torch._neg_view(plain),
        "many dimensions": lambda: plain.reshape(*([1] * 20), *plain.shape),
    }


def changes_of(key: str) -> Iterator[tuple[str, Change]]:
    for name in evil_tensors(torch.zeros(1, 1)):

        def put(values: Values, name: str = name) -> None:
            plain: Any = values
            for part in key.split("/"):
                plain = plain[int(part) if part.isdecimal() else part]
            change(key, evil_tensors(plain)[name]())(values)

        yield f"{key} {name}", put


def tensor_changes() -> Iterator[tuple[str, Change]]:
    for key in (f"model/{TABLE}", f"model/{GAIN}", f"model/{MATRIX}", "optimizer/state/0/exp_avg"):
        yield from changes_of(key)
    for name in ("missing", "none", "bool", "double", "sparse", "meta", "expanded", "wider", "narrower", "one number"):
        yield f"rng/0/cpu {name}", change("rng/0/cpu", evil_tensors(torch.zeros(5056))[name]())
    for name in ("missing", "none", "number", "int64", "complex", "sparse", "meta", "parameter"):
        key = "optimizer/state/0/step"
        yield f"{key} {name}", change(key, evil_tensors(torch.ones(()))[name]())
    yield "another weight", change("model/extra", torch.zeros(3))
    yield "a weight with a long name", change("model/" + "x" * 100_000, torch.zeros(3))
    yield "many weights", lambda values: values["model"].update({f"w{n}": torch.zeros(1) for n in range(2000)})
    yield (
        "one tensor as many",
        lambda values: values["model"].update(dict.fromkeys(map(str, range(999)), torch.ones(9))),
    )


def optimizer_changes() -> Iterator[tuple[str, Change]]:
    for key in ("state", "param_groups", "state/0", "param_groups/0", "param_groups/0/lr", "param_groups/0/betas",
                "param_groups/0/params", "param_groups/0/weight_decay", "state/0/exp_avg_sq"):  # fmt: skip
        for name in (
            "none",
            "true",
            "minus",
            "huge",
            "nan",
            "1e308",
            "list",
            "other keys",
            "tensor",
            "tensors",
            "mapping",
        ):
            make = EVIL[name]
            yield f"{key}={name}", lambda values, key=key, make=make: change(f"optimizer/{key}", make())(values)  # type: ignore[misc]
        if not key.endswith(("lr", "betas", "weight_decay")):  # these are then what the configuration says
            yield f"{key} missing", change(f"optimizer/{key}", ...)
    yield "a parameter too many", change("optimizer/state/9999", {"step": torch.tensor(1.0)})
    yield "betas out of range", change("optimizer/param_groups/0/betas", (0.9, 1.5))


EVERY = 16  # a change that is refused goes through all readers once in so many


@pytest.mark.sampled(1)
@pytest.mark.parametrize("changes", [optimizer_changes, config_changes, field_changes, tensor_changes])
def test_a_changed_value_is_refused_or_makes_no_difference(
    changes: Callable[[], Iterator[tuple[str, Change]]], genuine: Path, tmp_path: Path
) -> None:
    for number, (name, change_) in enumerate(changes()):
        values = grown(values_of(genuine))
        change_(values)
        with named(name):
            check_read(placed(tmp_path, saved(values), genuine), genuine, all_readers=number % EVERY == 0)


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(parts: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as file:
        for name, part in parts.items():
            file.writestr(name, part)
    return data.getvalue()


def with_pickle(data: bytes, pickled_: bytes) -> bytes:
    return zipped({**members(data), "archive/data.pkl": pickled_})


def numbers_of(data: bytes) -> str:
    return max((name for name in members(data) if "/data/" in name), key=lambda name: len(members(data)[name]))


def directory_with(data: bytes, change_: Callable[[bytearray, int], None]) -> bytes:
    """`data` with a change of the directory's entry of its largest part, as `zipfile` writes it."""
    plain = bytearray(zipped(members(data)))
    name = numbers_of(data).encode()
    change_(plain, plain.rindex(name) - 46)
    return bytes(plain)


def put(form: str, at: int, value: int) -> Callable[[bytearray, int], None]:
    return lambda data, start: struct.pack_into(form, data, start + at, value)


def laughing(depth: int) -> bytes:
    """A list that stands twice in the next one, and so on."""
    parts = [b"\x80\x02", b"]q\x00"]
    for number in range(depth):
        parts.append(b"](h%bh%beq%b" % (bytes([number]), bytes([number]), bytes([number + 1])))
    return b"".join([*parts, b"."])


def tensor_of(shape: bytes, strides: bytes, offset: bytes = b"K\x00") -> bytes:
    """A checkpoint with one tensor, whose storage is the file's `0`."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuM\x80\x08tQ"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + offset
        + shape
        + strides
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02}X\x01\0\0\0a" + tensor + b"s."


FILES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "zeros": lambda data: bytes(len(data)),
    "text": lambda _: b"hello\n" * 100,
    "only an end": lambda data: data[-22:],
    "an end that claims a long directory": lambda _: b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 9, 9, 2**31, 0, 0),
    "an end after 20 MB": lambda _: bytes(20 << 20) + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 9, 9, 20 << 20, 0, 0),
    "a long directory": lambda data: zipped(
        {**members(data), **{f"archive/data/x{'y' * 900}{n}": b"" for n in range(9000)}}
    ),
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "without its beginning": lambda data: data[1:],
    "something before": lambda data: b"#!/bin/sh\n" + data,
    "something after": lambda data: data + b"x" * 100,
    "twice": lambda data: data + data,
    "compressed": lambda data: zipped(members(data), compression=zipfile.ZIP_DEFLATED),
    "a bomb": lambda data: zipped(
        {**members(data), "archive/data/99": bytes(50 << 20)}, compression=zipfile.ZIP_DEFLATED
    ),
    "without data.pkl": lambda data: zipped({n: part for n, part in members(data).items() if not n.endswith(".pkl")}),
    "without numbers": lambda data: zipped({n: part for n, part in members(data).items() if "/data/" not in n}),
    "cut numbers": lambda data: zipped({**members(data), numbers_of(data): b"1234"}),
    "a program": lambda data: zipped({**members(data), "archive/constants.pkl": b"", "archive/code/x.py": b"pass"}),
    "outside its folder": lambda data: zipped({**members(data), "../../x": b"y"}),
    "two folders": lambda data: zipped({**members(data), "other/data.pkl": b"."}),
    "a deep folder": lambda data: zipped({f"a/{name}": part for name, part in members(data).items()}),
    "big endian": lambda data: zipped({**members(data), "archive/byteorder": b"big"}),
    "long byte order": lambda data: zipped({**members(data), "archive/byteorder": b"little" * 1000}),
    "without byte order": lambda data: zipped({n: p for n, p in members(data).items() if not n.endswith("order")}),
    "a size of 4 GB": lambda data: directory_with(data, put("<L", 24, 2**32 - 2)),
    "a packed size of 4 GB": lambda data: directory_with(data, put("<L", 20, 2**32 - 2)),
    "encrypted": lambda data: directory_with(data, put("<H", 8, 1)),
    "an unknown method": lambda data: directory_with(data, put("<H", 10, 99)),
    "a version of the future": lambda data: directory_with(data, put("<H", 6, 999)),
    "over another part": lambda data: directory_with(data, put("<L", 42, 0)),
    "beyond the end": lambda data: directory_with(data, put("<L", 42, 2**31)),
    "another sum": lambda data: directory_with(data, put("<L", 16, 1234)),
    "a pickle": lambda data: pickle.dumps({"format": "alm-checkpoint"}, protocol=2),
    "an old file of torch": lambda _: old(),
    "no pickle": lambda data: with_pickle(data, b""),
    "a stop": lambda data: with_pickle(data, b"."),
    "an empty mapping": lambda data: with_pickle(data, b"\x80\x02}."),
    "protocol 5": lambda data: with_pickle(data, pickle.dumps({"format": "alm-checkpoint"}, protocol=5)),
    "protocol 0": lambda data: with_pickle(data, pickle.dumps({"format": "alm-checkpoint"}, protocol=0)),
    "runs a command": lambda data: with_pickle(data, b"\x80\x02cposix\nsystem\nX\x06\0\0\0rm -rf\x85R."),
    "makes a long array": lambda data: with_pickle(data, b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x10\x85R."),
    "makes a large tensor": lambda data: with_pickle(data, b"\x80\x02ctorch\nTensor\n\x8a\x05\0\0\0\0\x10\x85R."),
    "a global without an end": lambda data: with_pickle(data, b"\x80\x02ctorch"),
    "a global of no text": lambda data: with_pickle(data, b"\x80\x02c\xff\xfe\n\xff\n."),
    "calls a number": lambda data: with_pickle(data, b"\x80\x02K\x01)R."),
    "builds": lambda data: with_pickle(data, b"\x80\x02}X\x01\0\0\0aK\x01s}b."),
    "lists in lists in lists": lambda data: with_pickle(data, laughing(30)),
    "itself": lambda data: with_pickle(data, b"\x80\x02]q\x00h\x00a."),
    "itself as a value": lambda data: with_pickle(data, b"\x80\x02}q\x00X\x06\0\0\0formath\x00s."),
    "tuples of tuples": lambda data: with_pickle(data, b"\x80\x02)" + b"q\x00h\x00h\x00\x87" * 200 + b"."),
    "deep tuples": lambda data: with_pickle(data, b"\x80\x02)" + b"\x85" * 100_000 + b"."),
    "deep lists": lambda data: with_pickle(data, b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    "many steps": lambda data: with_pickle(data, b"\x80\x02" + b"N" * 3_100_000 + b"."),
    "a far memo": lambda data: with_pickle(data, b"\x80\x02}r\xff\xff\xff\x7f."),
    "nothing in the memo": lambda data: with_pickle(data, b"\x80\x02h\x07."),
    "a text of 4 GB": lambda data: with_pickle(data, b"\x80\x02X\xff\xff\xff\xffabc."),
    "a text of 8 MB": lambda data: with_pickle(
        data, b"\x80\x02}X\x06\0\0\0formatX\0\0\x80\0" + b"x" * (8 << 20) + b"s."
    ),
    "no text": lambda data: with_pickle(data, b"\x80\x02X\x02\0\0\0\xff\xfe."),
    "half of a character": lambda data: with_pickle(data, b"\x80\x02X\x03\0\0\0\xed\xa0\x80."),
    "a number of 255 bytes": lambda data: with_pickle(data, b"\x80\x02\x8a\xff" + b"\x01" * 255 + b"."),
    "an empty stack": lambda data: with_pickle(data, b"\x80\x02\x85."),
    "no mark": lambda data: with_pickle(data, b"\x80\x02}u."),
    "an odd entry": lambda data: with_pickle(data, b"\x80\x02}(K\x01u."),
    "a key twice": lambda data: with_pickle(data, b"\x80\x02}(K\x01NK\x01Nu."),
    "a list for a key": lambda data: with_pickle(data, b"\x80\x02}]Ns."),
    "an entry of a list": lambda data: with_pickle(data, b"\x80\x02]K\x01Ns."),
    "an item of a mapping": lambda data: with_pickle(data, b"\x80\x02}K\x01a."),
    "a storage of another kind": lambda data: with_pickle(data, b"\x80\x02X\x03\0\0\0abcQ."),
    "a tensor": lambda data: with_pickle(data, tensor_of(b"M\x10\x01K\x08\x86", b"K\x08K\x01\x86")),
    "no strides": lambda data: with_pickle(data, tensor_of(b"J\xff\xff\xff\x7f\x85", b"K\x00\x85")),
    "strides over the end": lambda data: with_pickle(data, tensor_of(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85")),
    "a negative size": lambda data: with_pickle(data, tensor_of(b"J\xff\xff\xff\xff\x85", b"K\x01\x85")),
    "a negative offset": lambda data: with_pickle(data, tensor_of(b"K\x04\x85", b"K\x01\x85", b"J\xff\xff\xff\xff")),
    "an offset over the end": lambda data: with_pickle(data, tensor_of(b"K\x04\x85", b"K\x01\x85", b"M\x7f\x08")),
    "sizes whose product is large": lambda data: with_pickle(
        data, tensor_of(b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fK\x00K\x09t", b"(K\x01K\x01K\x01K\x01t")
    ),
    "nothing of a huge shape": lambda data: with_pickle(
        data, tensor_of(b"J\xff\xff\xff\x7fK\x00\x86", b"K\x00K\x00\x86")
    ),
    "text for a shape": lambda data: with_pickle(data, tensor_of(b"X\x01\0\0\0a", b"K\x01\x85")),
}  # fmt: skip


def old() -> bytes:
    file = io.BytesIO()
    torch.save({"format": "alm-checkpoint"}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.slow
def test_another_file_is_refused_or_makes_no_difference(genuine: Path, tmp_path: Path) -> None:
    for number, (name, make) in enumerate(FILES.items()):
        path = placed(tmp_path, make(genuine.read_bytes()), genuine)
        with named(name):
            refusals = check_read(path, genuine, all_readers=number % EVERY == 0)
            assert refusals or name in ("something before", "something after", "twice", "without byte order")


def test_a_flipped_bit_or_a_cut_is_refused_or_makes_no_difference(genuine: Path, tmp_path: Path) -> None:
    """Also where no metadata vouches for the bytes, as of a copy in another folder."""
    for seed in range(60):
        draw = random.Random(seed)
        data = bytearray(genuine.read_bytes())
        if seed % 3:
            bit = draw.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
        else:
            del data[draw.randrange(len(data)) :]
        with named(f"seed {seed}"):
            check_read(placed(tmp_path, bytes(data), genuine), genuine, all_readers=seed % EVERY == 0)


def test_a_program_in_a_file_never_runs(genuine: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    for name, evil in (("environment", Payload()), ("model", OrderedDict(a=Payload())), ("format", Payload())):
        data = saved({**values_of(genuine), name: evil})
        assert len(check_read(placed(tmp_path, data, genuine), genuine)) == len(READERS)
    assert not marker.exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_read_as_they_are(dtype: torch.dtype, genuine: Path, tmp_path: Path) -> None:
    values = values_of(genuine)
    halves = {name: tensor.to(dtype) for name, tensor in values["model"].items()}
    path = placed(tmp_path, saved({**values, "model": halves}), genuine)
    assert same(load_checkpoint(path).model, halves)


def test_all_that_training_writes_comes_back(genuine: Path) -> None:
    """By an independent reader: that of PyTorch."""
    found, expected = vars(load_checkpoint(genuine)), values_of(genuine)
    assert all(same(found[name], expected[name]) for name in found)
    assert expected.keys() - found.keys() == {"format", "format_version"}


def test_tensors_of_another_device_and_parts_of_one_memory_are_read(genuine: Path, tmp_path: Path) -> None:
    values = values_of(genuine)
    memory = torch.arange(20.0)
    environment = {"note": "x"}
    extra = {"optimizer": {"state": {0: {"a": memory[:8], "b": memory[8:].view(3, 4)}}}, "environment": environment}
    data = saved({**values, **extra})
    path = placed(
        tmp_path,
        with_pickle(data, members(data)["archive/data.pkl"].replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:0")),
        genuine,
    )
    assert same(load_checkpoint(path).optimizer, extra["optimizer"])


def test_one_memory_is_not_made_into_many(genuine: Path, tmp_path: Path) -> None:
    memory = torch.zeros(1000)
    shared = {number: {"a": memory} for number in range(500)}
    path = placed(tmp_path, saved({**values_of(genuine), "optimizer": {"state": shared}}), genuine)
    refusals = check_read(path, genuine)
    assert len(refusals) == len(READERS)
    assert all("bytes together, but its file" in refusal for refusal in refusals)


def test_tensors_that_do_not_fit_in_memory_are_not_made(genuine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a file of a terabyte that takes no room on its disk."""
    monkeypatch.setattr(available, "memory_bytes", lambda: 1000)
    refusals = check_read(genuine, genuine)
    assert len(refusals) == len(READERS)
    assert all("of memory are free" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"step": 4}, "says `step` is 4"),
        ({"file": "ckpt-step000009.pt"}, "is about `ckpt-step000009.pt`"),
        ({"file": "../other.pt"}, "ckpt-step000003.json"),
        ({"bytes": 7}, "is damaged"),
        ({"sha256": "0" * 64}, "is damaged"),
    ],
)
def test_a_promise_of_another_checkpoint_is_refused(
    changes: Values, phrase: str, genuine: Path, tmp_path: Path
) -> None:
    path = placed(tmp_path, genuine.read_bytes(), genuine)
    written = json.loads(path.with_suffix(".json").read_bytes())
    written.pop("checksum", None)
    path.with_suffix(".json").write_text(json.dumps({**written, **changes}))
    with pytest.raises(ArtifactError, match=phrase) as caught:
        verify(path)
    assert "rm " not in str(caught.value.hint)


def test_the_step_inside_must_be_the_one_that_was_promised(genuine: Path, tmp_path: Path) -> None:
    path = placed(tmp_path, saved({**values_of(genuine), "step": 4}), genuine)
    refusals = check_read(path, genuine)
    assert len(refusals) == len(READERS)
    assert all("its step is 4, but 3 was expected" in refusal for refusal in refusals)
    with pytest.raises(ArtifactError, match="its step is 3, but 8 was expected"):
        load_checkpoint(genuine, step=8)


def test_metadata_given_in_place_of_a_checkpoint_is_not_read(genuine: Path) -> None:
    for read in (verify, load_checkpoint):
        with pytest.raises(ArtifactError, match="is metadata, not a checkpoint") as caught:
            read(genuine.with_suffix(".json"))
        assert "rm " not in str(caught.value.hint)


def test_a_checkpoint_of_many_layers_is_read(tmp_path: Path) -> None:
    """The bounds leave room for any real one: a tenth of the largest is read."""
    config = ModelConfig.model_validate({**TINY_MODEL, "n_layers": 100, "qk_norm": True})
    weights = {name: torch.zeros(shape) for name, shape in shapes_of(config).items()}
    state = {number: {"a": torch.zeros(1), "b": torch.zeros(1)} for number in range(len(weights))}
    made = Checkpoint(0, 0, weights, {"state": state}, [], {"model": config.model_dump(mode="json")}, {}, "t", "d")
    assert load_checkpoint(save_checkpoint(made, tmp_path)).model.keys() == weights.keys()
