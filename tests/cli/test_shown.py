"""Text from strangers on a real terminal: seen, and never a command; a pipe gets it byte for byte."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import logged_row, sample_row, scored_row, write_run
from cases import for_each
from sources import last_name, nodes_of

from alm import shown
from alm.cli import main, repl, screen, ui
from alm.cli.console import Console
from alm.cli.render import LiveListener
from alm.cli.sample_output import Texts, show_probabilities
from alm.cli.token_view import show_pieces
from alm.errors import AlmError, ArtifactError, shell
from alm.events import Event, Judged, Noted, Progressed, Resumed, Sampled, StageBegan, Stepped, UnitsProgressed, Warned
from alm.generation.completions import Completion, TextChunk
from alm.generation.config import SamplingConfig
from alm.generation.sampling import SampledToken
from alm.report.record import Watched
from alm.tokenizers.file import Tokenizer

# A title, the clipboard, a link, a report, a colour, 8-bit commands, an overwritten line, reordering, bad bytes.
EVIL = (
    "a\x1b]0;evil\x07\x1b]52;c;ZXZpbA==\x07\x1b]8;;https://evil.example\x1b\\b\x1b]8;;\x1b\\\x1b[6n\x1b[31;1;5m"
    "\x9b2J\x9d52;c;eA==\x9c\x85\rError\x08\x7f\u202ec\u2066\u2028\ufeff\udce9\U000e0041[bold]z[/bold]"
)
NAME = EVIL.replace("/", "|")  # as much of it as a file can be called
UTF8_NAME = NAME.replace("\udce9", "")
LINES = f"{EVIL}\nHint: run `rm -rf ~`\n\x1b[2J"

# What our own display says to a terminal: styles of letters, movements of the cursor, modes.
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|\d*[ABCDGHK]|\?(?:25|1049|2026)[hl])")
COMMANDS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def harmless(received: bytes) -> str:
    """What a terminal received, without what commands it; a failure where a stranger commands it, too."""
    text = received.decode("utf-8")  # whole characters alone
    assert "\x1b[31;1;5m" not in text
    rest = OURS.sub("", text)
    assert not COMMANDS.search(rest), rest[max(COMMANDS.search(rest).start() - 20, 0) :][:80]  # type: ignore[union-attr]
    assert not re.search(r"\r(?!\n|\x1b\[2K|\x1b\[\?2026l)", text)  # a line is written over by the display alone
    return rest


Terminal = Callable[[Callable[[], Any]], str]


class Screen:
    """A pseudo-terminal as stdout and stderr of this process."""

    def __init__(self, encoding: str) -> None:
        import pty
        import termios
        import tty

        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave, termios.TCSANOW)  # newlines come as they were written
        termios.tcsetwinsize(self._slave, (40, 100))
        self._encoding = encoding

    def show(self, act: Callable[[], Any]) -> bytes:
        """Run `act` and return what the terminal received."""
        received = bytearray()

        def read() -> None:
            while not received.endswith(b"\x00END"):
                received.extend(os.read(self._master, 65536))

        reader = threading.Thread(target=read)
        reader.start()
        before = sys.stdout, sys.stderr
        streams = [os.fdopen(os.dup(self._slave), "w", encoding=self._encoding) for _ in before]
        sys.stdout, sys.stderr = streams
        try:
            act()
        finally:
            sys.stdout, sys.stderr = before
            for stream in streams:
                stream.close()
            os.write(self._slave, b"\x00END")
            reader.join()
        return bytes(received[:-4])

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """What a terminal shows of something that is done, once it is sure that no stranger commanded it."""
    pytest.importorskip("pty", reason="Windows has none")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    opened = Screen("utf-8")
    yield lambda act: harmless(opened.show(act))
    opened.close()


def alm(*words: str) -> Callable[[], int]:
    """A command line in this process, and its exit code."""

    def call() -> int:
        with pytest.raises(SystemExit) as ending:
            main.main(words)
        return int(ending.value.code or 0)

    return call


def test_the_judge_of_these_tests_sees_each_command() -> None:
    for command in ("\x1b]52;c;\x07", "\x1b]8;;x\x1b\\", "\x1b[6n", "\x9b2J", "\x85", "\u202e", "\x07", "\x1b[31;1;5m"):
        with pytest.raises(AssertionError):
            harmless(f"a{command}b".encode())
    with pytest.raises(AssertionError):
        harmless(b"one\rtwo")
    with pytest.raises(UnicodeDecodeError):
        harmless(b"\xe9")
    assert harmless(b"\x1b[31mred\x1b[0m \x1b[2K\x1b[1A\r\n") == "red \r\n"


# ---- lines, tables, errors ---------------------------------------------------------------------------------


def test_all_that_is_said_and_printed(terminal: Terminal) -> None:
    def act() -> None:
        ui.echo_err(EVIL)
        ui.write(EVIL)
        ui.write_exact(EVIL)
        ui.show_result({}, [EVIL, *ui.table([(EVIL, EVIL)]), *ui.columns([(EVIL, EVIL, EVIL)])], as_json=False)
        ui.show_result({EVIL: [EVIL]}, [], as_json=True)
        ui.next_step("alm", "pack", "--in", Path(NAME), quiet=False, as_json=False)

    seen = terminal(act)
    assert seen.count(r"a\x1b]0;evil\x07\x1b]52;c;ZXZpbA==\x07") == 3 + 1 + 2 + 3 + 1
    assert r"\u0085\rError\x08\x7f\u202ec\u2066\u2028\ufeff\xe9\U000e0041[bold]z[/bold]" in seen
    [values] = [json.loads(line) for line in seen.splitlines() if line.startswith("{")]
    assert values == {EVIL: [EVIL]}


def test_a_name_cannot_forge_a_line(terminal: Terminal) -> None:
    def act() -> None:
        ui.show_error(AlmError(f"`{LINES}` is wrong:\n  here: {LINES}", hint=f"run `alm info {LINES}`"))
        ui.show_result({}, ui.table([(LINES, LINES)]), as_json=False)
        for listener in (ui.PlainListener(), ui.warnings_only):
            listener(Warned(f"`{LINES}` is gone", LINES))

    lines = terminal(act).splitlines()
    assert sum(line.startswith("Hint:") for line in lines) == 1
    assert len(lines) == 4 + 1 + 2
    assert lines[1].startswith("  here: ")


def test_a_word_to_paste_is_the_same_word_to_a_shell() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    name = NAME.replace("\u2066", "'\\ $HOME`x`\n")
    found = subprocess.run([bash, "-c", f"printf %s {shell(name)}"], capture_output=True, check=True)
    assert found.stdout == os.fsencode(name)
    assert shown.line(shell(name)) == shell(name)


def test_json_is_the_same_value_and_nothing_a_terminal_obeys() -> None:
    text = "".join(map(chr, [*range(0x2100), *range(0xDC80, 0xDD00), 0xFEFF, 0x1F600]))
    made = shown.as_json({text: text})
    assert json.loads(made) == {text: text}
    assert shown.line(made) == made


@pytest.mark.parametrize("words", [["--" + NAME], [NAME], ["info", "--" + NAME], ["pack", "--seq-len", NAME], ["info"]])
def test_usage_errors_and_help_of_typer(terminal: Terminal, words: list[str]) -> None:
    seen = terminal(alm(*words))
    assert "Error" in seen
    assert len(words) == 1 or r"\x1b]52" in seen or "unable to parse" in seen


def test_what_others_print_while_a_command_runs(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(_: Path) -> None:
        print(EVIL)  # noqa: T201
        sys.stderr.writelines([EVIL, "\n"])
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            monkeypatch.setattr(warnings, "showwarning", lambda *_: sys.stderr.write(EVIL))
            warnings.warn(EVIL, stacklevel=1)
        handler = logging.StreamHandler()
        handler.emit(logging.makeLogRecord({"msg": EVIL}))
        raise RuntimeError(LINES)

    monkeypatch.setattr("alm.cli.inspect.inspect", noisy)
    codes: list[int] = []
    seen = terminal(lambda: codes.append(alm("info", "x")()))
    assert codes == [70]
    assert seen.count(r"\x1b]52;c;ZXZpbA==\x07") >= 5
    assert "this is a bug in alm" in seen


def test_what_is_written_around_the_display_is_shown_too(terminal: Terminal) -> None:
    def act() -> None:
        with screen.guarding(), LiveListener() as listener:
            listener(Noted("begun"))
            sys.stderr.write(EVIL + "\n")
            ui.echo_err(EVIL)
            sys.stderr.write("the end\n")

    seen = terminal(act)
    assert "the end" in seen
    assert seen.replace("\r", "").replace("\n", "").count(r"\x1b]8;;https://evil.example\x1b\b") == 2


# ---- displays ----------------------------------------------------------------------------------------------

EVENTS: list[Event] = [
    StageBegan(1, 5, LINES),
    Noted(LINES),
    Warned(LINES, LINES),
    Progressed(LINES, 1, None, LINES),
    UnitsProgressed(LINES + "2", 1, 3, documents=2, bytes=3, bytes_kept=2),
    Resumed(Path(NAME), 1, 3),
    Stepped(1, 3, 1e-3, 1000.0, loss=5.0),
    Sampled(1, ((LINES, LINES),)),
    Judged(1, 3, LINES),
]


@pytest.mark.parametrize("make", [LiveListener, lambda: ui.listening(live=False)])
def test_events_of_a_stage(terminal: Terminal, make: Callable[[], Any]) -> None:
    def act() -> None:
        with make() as listener:
            for event in EVENTS:
                listener(event)

    seen = terminal(act)
    assert r"\x1b]52;c;ZXZpbA==\x07" in seen
    assert "[bold]z[/bold]" in seen
    assert not re.search(r"^(?:Hint|Error):", seen, re.MULTILINE)


@pytest.mark.parametrize("ways", [["--once"], ["--json"], []])
def test_watching_a_run(terminal: Terminal, tmp_path: Path, ways: list[str]) -> None:
    rows = [logged_row(1, 5.0), scored_row(1, 2.0) | {"verdict": LINES}, logged_row(2, 4.0)]
    folder = write_run(tmp_path / NAME, rows, texts=[sample_row(2, LINES, LINES)], finished=True)
    seen = terminal(alm("watch", str(folder), *ways))
    assert r"\x1b]0;evil" in seen or r"\u001b]0;evil" in seen


def test_following_a_run_in_a_pipe_shows_it_too(tmp_path: Path, run: Any) -> None:
    folder = write_run(tmp_path / "run", [logged_row(1, 5.0)], texts=[sample_row(1, LINES, LINES)], finished=True)
    code, out, _ = run("watch", str(folder), "--once")
    assert code == 0
    assert shown.text(out) == out
    assert Watched(folder).folder == folder


# ---- samples and tokens ------------------------------------------------------------------------------------


def texts(prompt: str, text: str) -> Texts:
    made = Texts(prompt, SamplingConfig(), 1, silent=False)
    made.take([TextChunk(0, text, SampledToken(300, -0.5, ((300, -0.5),)))])
    return made


def test_a_sample_on_a_terminal_is_shown_and_in_a_pipe_exact(
    terminal: Terminal, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = EVIL.replace("\udce9", "") + "\ttab\nnext\u200d🏳️‍🌈"
    seen = terminal(lambda: texts(text, text))
    assert "\ttab\nnext\u200d🏳️‍🌈" in seen
    capfdbinary.readouterr()
    texts(text, text)
    assert capfdbinary.readouterr().out == (2 * text + "\n").encode()


@pytest.mark.parametrize("colours", [True, False])
def test_pieces_and_probabilities(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, colours: bool) -> None:
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    tokenizer = Tokenizer.from_merges([])
    monkeypatch.setattr(Tokenizer, "token_bytes", lambda *_: EVIL.replace("\udce9", "").encode())
    written = Completion(1)
    written.add(TextChunk(0, EVIL, SampledToken(300, -0.5, ((300, -0.5),))))

    def act() -> None:
        show_pieces([EVIL.replace("\udce9", "").encode(), b"\x1b\xff"])
        show_probabilities(tokenizer, EVIL, written)

    seen = terminal(act)
    assert "<0x1B>]52;c;" in seen
    assert "<U+202E>" in seen


def test_a_conversation(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded:
        def write(self, prompts: list[str], *_: Any, **__: Any) -> list[TextChunk]:
            return [TextChunk(0, EVIL, SampledToken(300))]

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{EVIL}\n/{EVIL}\n/set stop=[{json.dumps(EVIL)}]\n/show\n/quit\n"))
    loaded: Any = Loaded()
    seen = terminal(lambda: repl.converse(loaded, SamplingConfig(), quiet=False, on_event=lambda _: None))
    assert seen.count(r"\x1b]52;c;ZXZpbA==\x07") >= 3


def test_decoding_is_exact_in_a_pipe_and_shown_on_a_terminal(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.from_merges([])
    (tmp_path / "artifacts").mkdir()
    tokenizer.save(tmp_path / "artifacts/tokenizer.json")
    text = EVIL.replace("\udce9", "") + "\n\t\r\n"
    ids = [str(number) for number in tokenizer.encode(text)]
    assert r"\x1b]52;c;ZXZpbA==\x07" in terminal(alm("tokenizer", "decode", *ids))
    capfdbinary.readouterr()
    alm("tokenizer", "decode", *ids)()
    assert capfdbinary.readouterr().out == text.encode()
    for words in (["encode", text, "--show"], ["encode", text, "--json"], ["decode", *ids, "--json"]):
        terminal(alm("tokenizer", *words))


# ---- files and names ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_of_any_name_from_text_to_packed_data(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "texts" / UTF8_NAME
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"{number}{NAME[:40]}.txt").write_text(f"Text {number} of {EVIL}".replace("\udce9", "") * 40, "utf-8")
    (tmp_path / (UTF8_NAME + ".jsonl")).write_text('{"text": 1')
    (tmp_path / (NAME + ".json")).write_text("{")
    commands = [
        ["corpus", "prepare", "texts", "--dry-run"],
        ["corpus", "prepare", "texts"],
        ["corpus", "prepare", UTF8_NAME + ".jsonl", "--out", "x"],
        ["corpus", "prepare", NAME, "--out", "x"],
        ["tokenizer", "train", "--vocab-size", "300"],
        ["tokenizer", "train", "--dry-run", "--input", str(folder)],
        ["tokenizer", "compare", "--text", "data/clean"],
        ["pack", "--seq-len", "16", "--dry-run"],
        ["pack", "--seq-len", "16", "--quiet"],
        ["pack", "--tokenizer", NAME + ".json"],
        ["pretrain", "--model", NAME + ".yaml"],
        ["pretrain", "--set", f"{NAME}=1"],
        ["config", "check", NAME],
        ["info", "data/clean"],
        ["info", "data/packed"],
        ["info", NAME],
        ["info", NAME + ".json"],
        ["report", NAME],
        ["watch", NAME],
        ["sample", "--checkpoint", NAME],
        ["export", "--checkpoint", NAME, "--to", NAME],
        ["import", NAME],
        ["data", "show", "--run", NAME],
    ]
    for command in commands:
        for more in ([], ["--json"]) if command[0] == "info" else ([],):
            codes: list[int] = []
            seen = terminal(lambda words=[*command, *more], codes=codes: codes.append(alm(*words)()))  # type: ignore[misc]
            assert codes[0] != 70, (command, seen)


def test_metadata_of_a_stranger(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from alm.cli import inspect

    found = inspect.Found(LINES, [(LINES, LINES)], [LINES], LINES, [{LINES: LINES}])
    monkeypatch.setattr(inspect, "inspect", lambda _: found)
    for more in ([], ["--json"]):
        lines = terminal(alm("info", NAME, *more)).splitlines()
        assert sum(line.startswith("Hint:") for line in lines) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_of_any_encoding_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    pytest.importorskip("pty", reason="Windows has none")
    monkeypatch.setenv("TERM", "xterm-256color")

    def act() -> None:
        for text in (EVIL, "日本 Größe"):
            ui.echo_err(text)
            ui.write(text)
            ui.write_exact(text)
            Console().print(text)
            with screen.guarding():
                print(text)  # noqa: T201
                print(text, file=sys.stderr)  # noqa: T201
        show_pieces([EVIL.encode("utf-8", "surrogateescape"), "日本\n".encode()])
        with LiveListener() as listener:
            for event in EVENTS:
                listener(event)
        assert alm("--" + NAME)() == 2

    opened = Screen(encoding)
    received = opened.show(act).decode(encoding)
    opened.close()
    assert r"\x1b]52" in received
    assert "\x1b]" not in received


def test_names_that_are_not_utf8_in_any_locale(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    for more in ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}):
        words = [sys.executable, "-m", "alm", f"--{name}"]
        ended = subprocess.run(words, env={**os.environ, **more}, cwd=tmp_path, capture_output=True, check=False)
        assert ended.returncode == 2, ended.stderr
        assert rb"caf\xe9.txt" in ended.stderr


# ---- what libraries say ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` will likely succeed",
        "Object arrays cannot be loaded when allow_pickle=False",
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        "use `torch.serialization.add_safe_globals([x])` to allowlist this global if you trust this class",
    ],
)
def test_advice_to_switch_a_safeguard_off_is_never_handed_on(
    said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown.reason(ValueError(said)) == "it is damaged, or holds what is never loaded because it could run code"
    monkeypatch.setattr(ui, "_show_tracebacks", True)
    try:
        try:
            raise ValueError(f"first\n{said}")
        except ValueError as error:
            raise ArtifactError("`x` is no whole checkpoint") from error
    except ArtifactError as error:
        ui.show_error(error)
        ui.show_bug()
    err = capsys.readouterr().err
    assert "first" in err
    assert said not in err


# ---- the source --------------------------------------------------------------------------------------------

WRITERS = ("alm/cli/screen.py", "alm/cli/console.py")
# The last names of what is looked for, before any expression is looked at as a whole.
WRITING = ("print", "echo", "secho", "warn", "write", "writelines", "Console", "get_console")


def writes(source: str) -> list[str]:
    """The expressions of a module that write to the terminal by themselves."""
    nodes = nodes_of(source)
    imported = {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module in ("rich", "rich.console")
        for alias in node.names
    }
    found = []
    for node in nodes:
        if not isinstance(node, ast.Call) or last_name(node.func) not in WRITING:
            continue
        called = ast.unparse(node.func)
        if called in ("print", "typer.echo", "typer.secho", "rich.print", "warnings.warn"):
            found.append(called)
        if re.search(r"\b(__)?std(out|err)(__)?(\.buffer)?\.write(lines)?$", called):
            found.append(called)
        if (called in ("Console", "get_console") and called in imported) or called == "rich.console.Console":
            found.append("Console of Rich")
    return found


def test_one_module_writes_to_the_terminal(repository: Path) -> None:
    for path in (repository / "alm").rglob("*.py"):
        if path.relative_to(repository).as_posix() not in WRITERS:
            assert writes(path.read_text("utf-8")) == [], path
    assert writes((repository / "alm/cli/screen.py").read_text("utf-8")) == ["sys.stdout.buffer.write"]


@for_each(
    "source, found",
    [
        ("print(1)", ["print"]),
        ("import sys\nsys.stderr.write('a')", ["sys.stderr.write"]),
        ("from rich.console import Console\nConsole().print(1)", ["Console of Rich"]),
        ("from rich.console import Console\ndef f(x: Console) -> None: ...", []),
        ("def f():\n    typer.echo('a')", ["typer.echo"]),
        ("sys.__stdout__.buffer.write(b'')", ["sys.__stdout__.buffer.write"]),
        ("console.print(1)", []),
    ],
)
def test_a_planted_write_is_found(source: str, found: list[str]) -> None:
    assert writes(source) == found
