"""Configuration: strict, and every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from alm.config.base import Config, OfKind
from alm.config.load import Part, load, read_yaml, write_yaml
from alm.errors import AlmError, ConfigError


class Inner(Config):
    lr: float = 1.0
    steps: int = Field(default=1, gt=0)


class Outer(Config):
    first: Inner = Inner()
    second: Inner = Inner()
    named: dict[str, Inner] = Field(default={})
    schedule: Annotated[Config, OfKind("alm.optim.schedules", default="cosine")] = Field(
        default="cosine", validate_default=True
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def problems(*parts: Part, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(Outer, parts, overrides=overrides)
    assert caught.value.exit_code == 2
    return [line.strip() for line in caught.value.message.splitlines()]


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "first: {lr: zero, stps: 3}\nfrist: {}\n")
    two = write(tmp_path / "two.yaml", "second: {steps: 0}\n")
    found = problems(Part(one, frozenset({"first"})), Part(two, frozenset({"second"})), overrides=("named.a.lr=x",))
    assert found == [
        f"{one}: `frist`: unknown key (did you mean `first`?)",
        f"{one}: `first.lr`: Input should be a valid number, unable to parse string as a number, not 'zero'",
        f"{one}: `first.stps`: unknown key (did you mean `steps`?)",
        f"{two}: `second.steps`: Input should be greater than 0, not 0",
        "--set: `named.a.lr`: Input should be a valid number, unable to parse string as a number, not 'x'",
    ]


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "first: {}\nsecond: {}\nfirst: {}\n")
    assert problems(Part(path)) == [f"{path}: line 3: key `first` is given twice (first in line 1)"]


def test_yaml_reads_as_people_expect(tmp_path: Path) -> None:
    text = (
        "a: 1e-4\nb: 1E5\nc: no\nd: 12:30\ne: 017\nf: 1_000\ng: true\nh: null\ni: .5\nj: 0x10\nk: -3\nl: 2024-01-01\n"
    )
    found = read_yaml(write(tmp_path / "a.yaml", text))
    expected = [1e-4, 1e5, "no", "12:30", 17, 1000, True, None, 0.5, 16, -3, "2024-01-01"]
    assert list(found.values()) == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected]


def test_broken_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "first:\n  lr: [1\n")
    assert problems(Part(path))[0].startswith(f"{path}: line ")


@pytest.mark.parametrize("text", ["- 1\n", "word\n"])
def test_a_file_that_is_no_mapping_is_told(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.yaml", text)
    assert "must be a mapping of sections" in problems(Part(path))[0]


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(Outer, [Part(write(tmp_path / "a.yaml", "# nothing\n"))]) == Outer()


def test_a_union_file_is_accepted_for_a_part(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "first: {lr: 2}\nsecond: {lr: 3}\n")
    assert load(Outer, [Part(path, frozenset({"second"}))]) == Outer(second=Inner(lr=3))


def test_a_file_without_the_sections_it_is_given_for_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "first: {}\n")
    assert problems(Part(path, frozenset({"second"}))) == [f"{path}: has no `second`"]


def test_overrides_win_and_reach_new_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "first: {lr: 2}\n")
    found = load(Outer, [Part(path)], overrides=["first.lr=1e-3", "named.x.steps=7", "schedule.warmup_steps=3"])
    assert (found.first.lr, found.named["x"].steps, found.schedule.model_dump()["warmup_steps"]) == (1e-3, 7, 3)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("first.lr", "must have the form key.subkey=value"),
        ("frist.lr=1", "unknown key (did you mean `first`?)"),
        ("first.lr.x=1", "is below a value that is not a mapping"),
        ("first.lr=[1", "--set first.lr=[1: line 1"),
    ],
)
def test_an_override_that_cannot_be_put_is_told(tmp_path: Path, override: str, fault: str) -> None:
    path = write(tmp_path / "a.yaml", "first: {lr: 2}\n")
    assert fault in problems(Part(path), overrides=(override,))[0]


def test_a_plain_string_names_a_kind(tmp_path: Path) -> None:
    plain = load(Outer, [Part(write(tmp_path / "a.yaml", "schedule: cosine\n"))])
    spelt = load(Outer, [Part(write(tmp_path / "b.yaml", "schedule: {kind: cosine}\n"))])
    assert plain == spelt == Outer()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("schedule: cosin\n", "unknown kind `cosin` (did you mean `cosine`?) (one of: cosine, linear, wsd)"),
        ("schedule: {kind: cosine, warmup: 1}\n", "`schedule.warmup`: unknown key"),
        ("schedule: 3\n", "should be the name of a kind"),
    ],
)
def test_a_kind_that_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in problems(Part(write(tmp_path / "a.yaml", text)))[0]


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Outer().first = Inner(lr=2)  # type: ignore[misc]


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    config = load(Outer, [], overrides=["first.lr=3e-4", "named.x.steps=7"])
    path = write(tmp_path / "a.yaml", write_yaml(config.model_dump(mode="json")))
    assert load(Outer, [Part(path)]) == config


def test_braces_in_a_value_are_shown_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "first: {'{x}': 1, lr: '{y}'}\n")
    assert any("`first.{x}`: unknown key" in line for line in problems(Part(path)))


def bomb(levels: int, times: int = 9) -> str:
    """YAML whose aliases unfold to `times ** levels` values."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * times)}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 x", *lines])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(9), "its aliases repeat more values than any configuration has"),
        (bomb(100, 1), "its aliases repeat more values than any configuration has"),
        ("a: &a {b: 1}\n" + "".join(f"k{n}: {{<<: [{', '.join(['*a'] * 200)}]}}\n" for n in range(100)), "repeat more"),
        ("a: &a [*a]", "`*a` is inside the value that it refers to"),
        ("a: &a {<<: *a}", "`*a` is inside the value that it refers to"),
        ("[" * 100_000, "values are nested deeper than 64 levels"),
        ("- " * 70 + "x", "values are nested deeper than 64 levels"),
        ("a: " + "9" * 30, "is too large a number"),
        ("a: " + "9" * 5000, "is too large a number"),
        ("a: 0x" + "f" * 300, "is too large a number"),
        ("a: 1e999", "is too large a number"),
        ('a: "\\0"', "a zero byte is not text"),
        ("a: \x00", "special characters are not allowed"),
        ("a: \x1b[2J", "special characters are not allowed"),
        ("a: !!timestamp x", "has no meaning here"),
        ("a: !!float x", "has no meaning here"),
        ("a: !!python/object/apply:os.system [x]", "has no meaning here"),
        ("a: !!binary x", "has no meaning here"),
        ("? [a]\n: b", "unhashable"),
    ],
)
def test_hostile_yaml_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert said in caught.value.message
    assert str(path) in caught.value.message


def test_more_values_than_a_configuration_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alm.config.load.MOST_VALUES", 500)
    assert len(read_yaml(write(tmp_path / "a.yaml", "a: [" + "1," * 450 + "]"))["a"]) == 450
    with pytest.raises(ConfigError, match="there are more than 500 values"):
        read_yaml(write(tmp_path / "b.yaml", "a: [" + "1," * 501 + "]"))


def test_a_file_that_is_far_too_large_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(AlmError, match="more than 1,048,576 bytes"):
        read_yaml(write(tmp_path / "a.yaml", "#" * (1 << 21)))


@pytest.mark.parametrize("value", ["&a [*a]", "[" * 70, "9" * 30, '"\\0"', "!!float x", "1e999"])
def test_hostile_values_of_set_are_problems_like_others(value: str) -> None:
    assert problems(overrides=(f"first.lr={value}",))


@pytest.mark.parametrize("sign", ["", "-", "0x", "."])
def test_what_begins_like_a_long_number_is_text_at_once(tmp_path: Path, sign: str) -> None:
    """A pattern whose time grows with the square of the length would take hours, and end at the limit of a test."""
    for digits in ("1", "1_", "1.", "1e", "_"):
        text = sign + "1" + digits * (300_000 // len(digits)) + "x"
        assert read_yaml(write(tmp_path / "a.yaml", f"a: {text}")) == {"a": text}, digits
        assert sign or problems(overrides=(f"first.lr={text}",)), digits


def test_aliases_that_people_use_are_read(tmp_path: Path) -> None:
    text = "first: &f {lr: 2, steps: 3}\nsecond: {<<: *f, steps: 4}\nnamed: {a: *f, b: !!str 5}"
    assert read_yaml(write(tmp_path / "a.yaml", text)) == {
        "first": {"lr": 2, "steps": 3},
        "second": {"lr": 2, "steps": 4},
        "named": {"a": {"lr": 2, "steps": 3}, "b": "5"},
    }
