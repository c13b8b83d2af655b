from alm.errors import AlmError, ArtifactError, ConfigError, InputError, StoppedError


def test_each_failure_has_its_exit_code() -> None:
    codes = [error("x").exit_code for error in (AlmError, InputError, ArtifactError, ConfigError, StoppedError)]
    assert codes == [1, 1, 1, 2, 130]
    assert StoppedError("x", exit_code=143).exit_code == 143


def test_a_failure_carries_its_message_and_hint() -> None:
    error = AlmError("what is wrong", hint="run `this`")
    assert (str(error), error.message, error.hint) == ("what is wrong", "what is wrong", "run `this`")
