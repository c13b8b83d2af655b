"""What a disk, a kill or a stranger can make of a file: bytes in, bytes out, each with a name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

HUGE = int("9" * 4000)
VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", "5", -1, 0, 1 << 53, 1 << 63, HUGE, 1e308, -1e308, 0.5, [], {}, [[]], "\0", "\ud800"),
    *("../../precious.txt", "/etc/hostname", "a\\b", "C:x", "caf\udce9.txt", "\x1b]52;c;x\x07", "9" * 5000, [0] * 3000),
)
Bytes = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, draw: random.Random) -> bytes:
    """One bit is another."""
    if not data:
        return b"\x01"
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    """The end is missing."""
    return data[: draw.randrange(len(data) + 1)]


def zeros(data: bytes, draw: random.Random) -> bytes:
    """A block was never written."""
    at = draw.randrange(len(data) + 1)
    return data[:at] + bytes(len(data[at : at + 512])) + data[at + 512 :]


def doubled(data: bytes, draw: random.Random) -> bytes:
    """A piece is there twice."""
    at = draw.randrange(len(data) + 1)
    return data[:at] + data[at : at + draw.randrange(1, 400)] + data[at:]


def garbage(data: bytes, draw: random.Random) -> bytes:
    """A piece is of another file."""
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.randbytes(draw.randrange(1, 64)) + data[at + draw.randrange(64) :]


def numbers(data: bytes, draw: random.Random) -> bytes:
    """A number is another, whatever the format."""
    places = [at for at, byte in enumerate(data) if chr(byte) in "0123456789"]
    if not places:
        return garbage(data, draw)
    at = draw.choice(places)
    new = draw.choice([b"-1", b"1e308", b"9" * 4000, b"NaN", b"1e999", b"true", b'"x"', b"0x" + b"f" * 300])
    return data[:at] + new + data[at + 1 :]


def deep(data: bytes, draw: random.Random) -> bytes:
    """Brackets without end."""
    opening = draw.choice([b"[", b'{"a":', b"- ", b"{a: "])
    at = draw.choice([0, draw.randrange(len(data) + 1)])
    return data[:at] + opening * draw.choice([70, 2000, 100_000]) + data[at:]


def bomb(data: bytes, draw: random.Random) -> bytes:
    """YAML whose aliases unfold to more than memory holds, or to themselves."""
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, draw.choice([9, 60])))
    return data + b"\n" + draw.choice([b"a0: &a0 x\n" + levels.encode(), b"z: &z [*z]\n", b"z: &z {<<: *z}\n"])


ANY: tuple[Bytes, ...] = (flip, flip, flip, cut, zeros, doubled, garbage, numbers, deep)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in `value` with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, inner in items:
        found += [(value, key), *_places(inner)]
    return found


def in_json(data: bytes, draw: random.Random) -> bytes:
    """A value, a key or two values are others, in what is still JSON."""
    value = json.loads(data)
    places = _places(value)
    if not places:
        return data
    inside, key = draw.choice(places)
    way = draw.randrange(7)
    if way <= 2:
        inside[key] = draw.choice(VALUES)
    elif way == 3:
        del inside[key]
    elif way == 4:
        other, other_key = draw.choice(places)
        inside[key], other[other_key] = other[other_key], inside[key]
        try:
            json.dumps(value)
        except (ValueError, RecursionError):  # one was inside the other
            return flip(data, draw)
    elif way == 5 and isinstance(inside[key], int | float):
        inside[key] = draw.choice([inside[key] + 1, inside[key] - 1, -inside[key], inside[key] * 2])
    elif isinstance(inside, dict):
        inside[draw.choice(["extra", "checksum", "format", "shards", "__class__", "\x1b[2J"])] = draw.choice(VALUES)
    else:
        inside += [draw.choice(VALUES)] * draw.choice([1, 500])
    text = json.dumps(value, ensure_ascii=draw.random() < 0.9)
    return text.encode("utf-8", "surrogatepass")


def in_lines(data: bytes, draw: random.Random) -> bytes:
    """A line is another, or is not where it was."""
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    way = draw.randrange(4)
    if way == 0 and lines[at].startswith(b"{"):
        lines[at] = in_json(lines[at], draw)
    elif way == 1:
        lines.insert(at, draw.choice(lines))
    elif way == 2:
        del lines[at]
    else:
        draw.shuffle(lines)
    return b"\n".join(lines)


def of(name: str) -> tuple[Bytes, ...]:
    """What can be made of a file of that name."""
    if name.endswith(".json"):
        return (*ANY, *[in_json] * len(ANY))
    if name.endswith(".jsonl"):
        return (*ANY, *[in_lines] * len(ANY))
    return (*ANY, bomb, bomb, bomb) if name.endswith(".yaml") else ANY
