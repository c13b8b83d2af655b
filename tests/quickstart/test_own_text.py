"""A quickstart with one's own text: what it chooses, and that its commands do the same."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import pytest
from builders import texts
from cases import for_each

from alm.errors import AlmError, ConfigError, InputError, StoppedError
from alm.events import Event, Resumed, StageBegan, Stepped
from alm.quickstart import own_text
from alm.quickstart.own_text import EXPECTED, OwnText, Recipe, prepared
from alm.quickstart.run import Finished, Places, quickstart
from alm.training.sizing import probe, suggest
from alm.training.sizing.probe import StepTimings
from alm.training.sizing.repeated_text import regularisation


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small text, on a machine whose speed is known."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my texts").mkdir()
    for number, text in enumerate(texts(60)):
        (tmp_path / "my texts" / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: StepTimings(0.02, 0.001, 0.001, 0.001))
    monkeypatch.setattr(suggest.devices, "matmul_rate", lambda *_: 1e11)
    monkeypatch.setattr(own_text, "SAMPLE_TOKENS", 8)
    return tmp_path


def made(job: OwnText, events: list[Event] | None = None) -> Finished:
    return quickstart(job, on_event=(events if events is not None else []).append)


@pytest.mark.slow
def test_it_goes_through_every_stage_with_what_it_chose(folder: Path) -> None:
    events: list[Event] = []
    job = prepared(["my texts"], None, steps=4)
    assert job.places.out == Path("alm-my-texts")
    assert job.expectation == "words and turns of phrase of the text, and few complete sentences"
    found = made(job, events)
    commands = [shlex.split(event.command) for event in events if isinstance(event, StageBegan)]
    assert [words[1] for words in commands] == ["corpus", "tokenizer", "pack", "pretrain", "sample", "report"]
    assert commands[0][3] == "my texts"
    assert commands[1][commands[1].index("--vocab-size") + 1] == str(job.recipe.vocab_size)
    assert commands[2][-2:] == ["--seq-len", str(job.recipe.seq_len)]
    assert {"training.max_steps=4"} <= set(commands[3])
    assert {"--model", "--out"} <= set(commands[3])
    assert found.run.result is not None
    assert found.run.result.step == 4
    assert len(found.texts) == len(found.prompts) == 3
    assert found.prompts[0] == ""
    assert found.report.is_file()
    again = prepared(["my texts"], None)
    assert (again.expected, again.recipe) == (None, job.recipe)
    assert made(again).run.result == found.run.result


@pytest.mark.slow
def test_an_interrupted_one_continues_in_the_same_run(folder: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError):
        quickstart(prepared(["my texts"], None, steps=4), on_event=interrupt)
    events: list[Event] = []
    cut = made(prepared(["my texts"], None, steps=4), events)
    assert any(isinstance(event, Resumed) and event.step == 2 for event in events)
    straight = made(prepared(["my texts"], Path("other"), steps=4))
    assert cut.run.result is not None
    assert straight.run.result is not None
    assert cut.run.result.bits_per_byte == straight.run.result.bits_per_byte
    assert cut.texts == straight.texts


def test_a_budget_is_kept_and_more_time_than_the_text_can_use_is_not_used(folder: Path) -> None:
    short, long = (prepared(["my texts"], None, budget=seconds) for seconds in (60.0, 100_000.0))
    assert short.seconds <= 60
    assert long.seconds < 100_000
    budgets = [list(job.commands())[3].rpartition("--budget ")[2] for job in (short, long)]
    assert all(budget.endswith("s") for budget in budgets)


def test_a_time_in_which_nothing_is_learned_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: StepTimings(60.0, 1.0, 1.0, 1.0))
    monkeypatch.setattr(suggest.devices, "matmul_rate", lambda *_: 1e7)
    with pytest.raises(ConfigError, match="30 seconds are too short") as caught:
        prepared(["my texts"], None, budget=30.0)
    assert "--budget" in str(caught.value.hint)
    assert not Path("alm-my-texts").exists()


@pytest.mark.parametrize(
    ("given", "budget", "said"),
    [(["a", "b"], None, "was started with `a`"), (["a"], 90.0, "started for 60 seconds")],
)
def test_another_text_or_time_wants_another_folder(
    folder: Path, given: list[str], budget: float | None, said: str
) -> None:
    for name in "ab":
        Path(name).write_text("some words\n" * 999)
    job = prepared(["a"], Path("q"), budget=60.0)
    job.start()
    with pytest.raises(ConfigError, match=said) as caught:
        prepared(given, Path("q"), budget=budget)
    assert "--fresh" in str(caught.value.hint)
    assert prepared(given, Path("q"), budget=budget, is_fresh=True).places.out == Path("q-2")


def test_overrides_go_to_the_text_or_to_the_run(folder: Path) -> None:
    Path("rows.jsonl").write_text('{"body": "some words to read"}\n' * 200)
    changes = ["sources.rows.field=body", "optim.lr=0.01"]
    job = prepared(["rows.jsonl"], Path("q"), changes=changes, steps=3)
    commands = [shlex.split(command) for command in job.commands()]
    assert "sources.rows.field=body" in commands[0]
    assert {"optim.lr=0.01", "training.max_steps=3"} <= set(commands[3])
    assert "optim.lr=0.01" not in commands[0]
    job.start()
    with pytest.raises(ConfigError, match="was started with `rows.jsonl --set sources.rows.field=body`"):
        prepared(["rows.jsonl"], Path("q"))
    with pytest.raises(ConfigError, match="optm"):
        prepared(["rows.jsonl"], Path("other"), changes=["sources.rows.field=body", "optm.lr=1"], steps=3)


@pytest.mark.slow
def test_a_finished_one_takes_more_steps_and_refuses_another_seed(folder: Path) -> None:
    made(prepared(["my texts"], None, steps=3))
    longer = made(prepared(["my texts"], None, steps=5)).run.result
    assert longer is not None
    assert longer.step == 5
    with pytest.raises(ConfigError, match="training.seed") as caught:
        made(prepared(["my texts"], None, seed=5))
    assert "--out alm-my-texts-2" in str(caught.value.hint)


@pytest.mark.slow
def test_a_text_that_changed_leaves_a_finished_one_as_it_is(folder: Path) -> None:
    made(prepared(["my texts"], None, steps=3))
    before = {path: path.read_bytes() for path in Path("alm-my-texts").rglob("*") if path.is_file()}
    Path("my texts/new.txt").write_text("one more text\n" * 50)
    with pytest.raises(ConfigError, match="the text has changed") as caught:
        prepared(["my texts"], None)
    assert "--fresh" in str(caught.value.hint)
    assert {path: path.read_bytes() for path in Path("alm-my-texts").rglob("*") if path.is_file()} == before


def test_a_quickstart_of_the_current_folder_lies_beside_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("my texts")
    assert prepared(["."], None, steps=3).places.out == Path("../alm-my-texts")
    with pytest.raises(ConfigError, match="is inside the text") as caught:
        prepared(["."], Path("model"), steps=3)
    assert str(caught.value.hint) == "add `--out ../alm-my-texts`"


@for_each(
    "text, beginning",
    [
        ("One two thr", "One two"),
        ("def f(x):\n    return x\n\nclass", "def f(x):\n    return x\n"),
        ("从前有一座山", "从前有一座"),
        ("word", "wor"),
        ("", ""),
    ],
)
def test_a_prompt_ends_before_what_may_be_cut(text: str, beginning: str) -> None:
    assert own_text._words(text) == beginning


def test_steps_decide_how_strongly_the_run_is_regularised(folder: Path) -> None:
    few, many = (prepared(["my texts"], None, steps=steps).expected for steps in (2, 4000))
    assert few is not None
    assert many is not None
    assert few.passes < many.passes
    assert regularisation(many.passes).overrides[0] in many.overrides
    with pytest.raises(ConfigError, match="which `--steps` sets too"):
        prepared(["my texts"], None, steps=3, budget=60.0)


def test_too_little_text_is_refused_before_anything_is_written(folder: Path) -> None:
    Path("note.txt").write_text("only this\n")
    with pytest.raises(InputError, match="only 10 bytes of text"):
        prepared(["note.txt"], None)
    with pytest.raises(AlmError, match="nowhere"):
        prepared(["nowhere"], None)
    assert sorted(path.name for path in folder.iterdir()) == ["my texts", "note.txt"]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"texts": [], "changes": [], "budget": 1.0, "vocab_size": 512, "seq_len": 2}']
)
def test_a_recipe_that_it_did_not_write_is_an_error(tmp_path: Path, content: str) -> None:
    places = Places(tmp_path, run="x")
    places.recipe.write_text(content)
    with pytest.raises(AlmError, match="is not what a quickstart") as caught:
        own_text.read(places.recipe)
    assert "--fresh" in str(caught.value.hint)


def test_a_recipe_is_read_back_as_it_was_written(folder: Path) -> None:
    job = prepared(["my texts"], Path("q"), budget=60.0)
    job.start()
    assert own_text.read(job.places.recipe) == job.recipe
    assert isinstance(job.recipe, Recipe)


def test_expectations_grow_with_the_text() -> None:
    assert [least for least, _ in EXPECTED] == sorted((least for least, _ in EXPECTED), reverse=True)
    assert EXPECTED[-1][0] == 0


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("my-texts/", "my-texts"),
        ("Bücher von mir", "Bücher-von-mir"),
        ("a/b.jsonl.gz", "b"),
        ("...", "text"),
        ("*", "text"),
    ],
)
def test_the_folder_is_named_after_the_text(
    given: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_text._name([given]) == name
