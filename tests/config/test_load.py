"""Configuration: strict, and every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from cases import for_each
from pydantic import Field, ValidationError

from alm.config import presets
from alm.config.base import Config, OfKind
from alm.config.load import Part, load
from alm.config.yaml_files import read_yaml, write_yaml
from alm.corpus.config import CorpusConfig
from alm.errors import AlmError, ConfigError
from alm.training.config import RunConfig


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
        f"{one}: line 2: `frist`: unknown key (did you mean `first`?)",
        f"{one}: line 1: `first.lr`: Input should be a valid number, unable to parse string as a number, not 'zero'",
        f"{one}: line 1: `first.stps`: unknown key (did you mean `steps`?)",
        f"{two}: line 1: `second.steps`: Input should be greater than 0, not 0",
        "--set named.a.lr=x: `named.a.lr`: Input should be a valid number, unable to parse string as a number, not 'x'",
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
        ("first.lr.x=1", "`first.lr` is 2, which has no key `x`"),
        ("first.lr=[1", "--set first.lr=[1: `first.lr`: line 1"),
    ],
)
def test_an_override_that_cannot_be_put_is_told(tmp_path: Path, override: str, fault: str) -> None:
    path = write(tmp_path / "a.yaml", "first: {lr: 2}\n")
    assert fault in problems(Part(path), overrides=(override,))[0]


def test_an_item_of_a_list_is_set_with_the_list() -> None:
    from alm.corpus.config import CorpusConfig, values_for_paths

    with pytest.raises(ConfigError) as caught:
        load(CorpusConfig, [], base=values_for_paths(["raw.txt"]), overrides=["sources.raw.paths.0=y"])
    expected = "`sources.raw.paths` is a list, which is set as a whole: `--set sources.raw.paths='[a, b]'`"
    assert caught.value.message == f"--set sources.raw.paths.0=y: {expected}"


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
    monkeypatch.setattr("alm.config.yaml_files.MOST_VALUES", 500)
    assert len(read_yaml(write(tmp_path / "a.yaml", "a: [" + "1," * 450 + "]"))["a"]) == 450
    with pytest.raises(ConfigError, match="there are more than 500 values"):
        read_yaml(write(tmp_path / "b.yaml", "a: [" + "1," * 501 + "]"))


def test_a_file_that_is_far_too_large_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(AlmError, match="more than 1,048,576 bytes"):
        read_yaml(write(tmp_path / "a.yaml", "#" * (1 << 21)))


@for_each("value", ["&a [*a]", "[" * 70, "9" * 30, '"\\0"', "!!float x", "1e999"])
def test_hostile_values_of_set_are_problems_like_others(value: str) -> None:
    assert problems(overrides=(f"first.lr={value}",))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("sign", ["", "-", "0x", "."])
def test_what_begins_like_a_long_number_is_text_at_once(tmp_path: Path, sign: str) -> None:
    """A pattern whose time grows with the square of the length would take hours, and end at the limit of a test."""
    for digits in ("1", "1_", "1.", "1e", "_"):
        text = sign + "1" + digits * (100_000 // len(digits)) + "x"
        assert read_yaml(write(tmp_path / "a.yaml", f"a: {text}")) == {"a": text}, digits
        assert sign or problems(overrides=(f"first.lr={text}",)), digits


def test_aliases_that_people_use_are_read(tmp_path: Path) -> None:
    text = "first: &f {lr: 2, steps: 3}\nsecond: {<<: *f, steps: 4}\nnamed: {a: *f, b: !!str 5}"
    assert read_yaml(write(tmp_path / "a.yaml", text)) == {
        "first": {"lr": 2, "steps": 3},
        "second": {"lr": 2, "steps": 4},
        "named": {"a": {"lr": 2, "steps": 3}, "b": "5"},
    }


FILE = """\
first:
  lr: 1

  steps: 3
schedule:
  kind: wsd
  warmup_steps: 7
  decay_fraction: 0.2
"""


def loaded(tmp_path: Path, *overrides: str) -> Outer:
    return load(Outer, [Part(write(tmp_path / "run.yaml", FILE))], overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("schedule.kind=cosin",), "--set schedule.kind=cosin: `schedule`: unknown kind"),
        (("schedule.kind=cosine", "schedule.decay_fraction=0.3"), "--set schedule.decay_fraction=0.3: `schedule.dec"),
        (("schedule={kind: cosine, decay: x}",), "--set schedule={kind: cosine, decay: x}: `schedule.decay`: unk"),
        (("first.lrr=3", "first.steps=4"), "--set first.lrr=3: `first.lrr`: unknown key (did you mean `lr`?)"),
        (("first=3",), "--set first=3: `first`: "),
        (("first.lr=2", "first.lr.x=4"), "--set first.lr.x=4: `first.lr` is 2, which has no key `x`"),
    ],
)
def test_an_override_is_named_where_it_is_wrong(tmp_path: Path, overrides: tuple[str, ...], said: str) -> None:
    path = write(tmp_path / "run.yaml", FILE)
    [found] = problems(Part(path), overrides=overrides)
    assert found.startswith(said)


def test_a_file_is_named_with_the_line_of_the_value(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", FILE.replace("steps: 3", "steps: 0"))
    [found] = problems(Part(path), overrides=("first.lr=2",))
    assert found == f"{path}: line 4: `first.steps`: Input should be greater than 0, not 0"


@pytest.mark.parametrize("change", ["training.max_steps=90", "scheduler.warmup_steps=1500"])
def test_the_override_that_does_not_fit_the_files_is_named(change: str) -> None:
    parts = [Part(presets.find("pico")), Part(presets.find("train"))]
    with pytest.raises(ConfigError, match=f"--set {change}: `scheduler`: a warm-up of"):
        load(RunConfig, parts, overrides=["scheduler.warmup_steps=80", "logging.log_interval=3", change])


def test_another_kind_keeps_what_both_have_and_drops_the_rest(tmp_path: Path) -> None:
    """Of the settings of a file; a setting of `--set` that the kind lacks is an error."""
    schedule: Any = loaded(tmp_path, "schedule.kind=cosine").schedule
    assert (schedule.kind, schedule.warmup_steps) == ("cosine", 7)
    for overrides in (
        ("schedule.warmup_steps=9", "schedule.kind=cosine"),
        ("schedule.warmup_steps=9", "schedule=cosine"),
    ):
        for order in (overrides, overrides[::-1]):
            schedule = loaded(tmp_path, *order).schedule
            assert (schedule.kind, schedule.warmup_steps) == ("cosine", 9)
    schedule = loaded(tmp_path, "schedule.kind=wsd").schedule
    assert schedule.decay_fraction == 0.2
    parts = [Part(presets.find("pico")), Part(presets.find("train"))]
    optim: Any = load(RunConfig, parts, overrides=["optim.kind=adamw"]).optim
    assert optim.weight_decay == 0.1
    assert optim.embedding_lr is None  # `auto` of the preset is a value of Muon
    assert optim.lr == 3e-4  # not Muon's rate, which is far too high


@for_each(
    "override, expected",
    [
        (
            "samples.prompts=3",
            "`samples.prompts`: Input should be a list, as `[a, b]`, not 3; or: Input should be 'auto', not 3",
        ),
        ("logging.sinks.0=wandb", "`logging.sinks`: Input should be a list, as `[a, b]`, not a mapping"),
        ("training.max_steps.x=1", "`training.max_steps` is 1600, which has no key `x`"),
        ("training.max_steps={x: 1}", "`training.max_steps`: Input should be a valid integer, not a mapping"),
        ("samples.prompts=[a, 3]", "`samples.prompts.1`: Input should be a valid string, not 3"),
        ("optim.embedding_lr=x", "`optim.embedding_lr`: Input should be a valid number, unable to parse"),
        (
            "scheduler.warmup_steps=-1",
            "`scheduler.warmup_steps`: Input should be greater than or equal to 0, not -1; or:",
        ),
    ],
)
def test_a_value_that_fits_no_type_is_one_problem_at_the_key_that_a_person_wrote(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(RunConfig, [Part(presets.find("pico")), Part(presets.find("train"))], overrides=[override])
    assert f"--set {override}: {expected}" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_typo_of_the_file_stays_an_error_with_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", FILE + "  warmup_stps: 3\n")
    [found] = problems(Part(path), overrides=("schedule.kind=cosine",))
    assert found.startswith(f"{path}: line 9: `schedule.warmup_stps`: unknown key")


def test_a_kind_inside_a_mapping_of_kinds_is_found() -> None:
    source = {"kind": "files", "paths": "x", "adapter": {"kind": "text"}, "max_bytes": 9}
    changed: Any = load(CorpusConfig, [], base={"sources": {"a": source}}, overrides=["sources.a.kind=tales"])
    assert (changed.sources["a"].kind, changed.sources["a"].max_bytes) == ("tales", 9)


def test_what_a_person_typed_is_what_an_error_names() -> None:
    with pytest.raises(ConfigError, match="/set first.lr=x: `first.lr`: Input") as caught:
        load(Outer, [], overrides=["first.lr=x"], typed={"first.lr=x": "/set first.lr=x"}, hint="type `/show`")
    assert caught.value.hint == "type `/show`"
