from pathlib import Path

import pytest

from alm.errors import AlmError, ArtifactError, ConfigError, InputError, StoppedError, absent_hint


def test_each_failure_has_its_exit_code() -> None:
    codes = [error("x").exit_code for error in (AlmError, InputError, ArtifactError, ConfigError, StoppedError)]
    assert codes == [1, 1, 1, 2, 130]
    assert StoppedError("x", exit_code=143).exit_code == 143


def test_a_failure_carries_its_message_and_hint() -> None:
    error = AlmError("what is wrong", hint="run `this`")
    assert (str(error), error.message, error.hint) == ("what is wrong", "what is wrong", "run `this`")


def test_a_chain_in_the_wrong_order_ends_in_a_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each artifact that is absent names the stage that makes it; other paths, what is there."""
    monkeypatch.chdir(tmp_path)
    for place in ("data/clean", "data/clean/tales.json", "data/clean/*.txt"):
        assert "`alm corpus prepare --src tales`" in absent_hint(Path(place))
        assert "`alm corpus prepare my-texts/`" in absent_hint(Path(place))
    assert absent_hint(Path("artifacts/tokenizer.json")) == "run `alm tokenizer train`"
    assert absent_hint(Path("data/packed")) == "run `alm pack`"
    assert absent_hint(Path("runs/x/run.json")) == "run `alm pretrain`"
    (tmp_path / "data" / "clean").mkdir(parents=True)
    assert absent_hint(Path("data/clean/x.txt")) == "run `ls data/clean` to see what is there"
    assert absent_hint(Path("my-texts/deep/x.txt")) == "run `ls .` to see what is there"
    assert absent_hint(tmp_path / "a" / "b") == f"run `ls {tmp_path}` to see what is there"
