"""`alm chat` as it is typed and piped: messages, commands, Ctrl-C, and what is kept on disk."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from alm import artifacts
from alm.checkpoint.format import Checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.cli import line_input
from alm.cli.line_input import LineInput
from alm.cli.word_wrap import WordWrap
from alm.corpus.records import read_records, unescape
from alm.generation import chat_files, chat_formats
from alm.generation.sampling import SampledToken, TokenSampler
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.tokenizers.file import Tokenizer

TOKENIZER = Tokenizer.from_merges([])
END = TOKENIZER.specials["<|im_end|>"]
CTRL_C = "\x03"  # in an answer: the person presses it there


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that was imported with ChatML."""
    folder = tmp_path_factory.mktemp("chat") / "runs" / "tiny"
    folder.mkdir(parents=True)
    config = ModelConfig(
        d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, ffn_hidden_size=24, vocab_size=TOKENIZER.vocab_size,
        max_position_embeddings=20_000, tie_embeddings=False,
    )  # fmt: skip
    model = Transformer(config)
    initialize(model, seed=3)
    with torch.no_grad():  # the likeliest token is not a control token
        model.head_weight[: len(TOKENIZER.specials)] = 0
    TOKENIZER.save(folder / "tokenizer.json")
    save_checkpoint(
        Checkpoint(
            step=0, samples_seen=0, model=dict(model.state_dict()), optimizer={}, rng=[],
            config={"model": config.model_dump(mode="json")}, environment={},
            tokenizer_sha256=TOKENIZER.sha256, data_sha256="",
        ),
        folder,
    )  # fmt: skip
    artifacts.write(
        folder / "import.json",
        artifacts.ImportMetadata(
            command="alm import x", config={}, inputs=(), kind="huggingface", architecture="llama", parameters=1,
            dtype="fp32", tokenizer_sha256=TOKENIZER.sha256, files=(),
            chat=chat_formats.named("chatml", TOKENIZER).model_dump(mode="json"),
        ),
    )  # fmt: skip
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its folder, as it is typed, in a working folder of its own."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny").symlink_to(made)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALM_KERNELS", "never")
    return "runs/tiny"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the model write these texts, one after the other."""

    def script(*answers: str) -> None:
        ids = iter([token for text in answers for token in [*TOKENIZER.encode(text), END]])

        def choose(sampler: TokenSampler, scores: torch.Tensor) -> SampledToken:
            chosen = next(ids)
            if chosen == TOKENIZER.encode(CTRL_C)[0]:
                signal.raise_signal(signal.SIGINT)
            sampler._remember(chosen)
            return SampledToken(chosen)

        monkeypatch.setattr(TokenSampler, "choose", choose)

    return script


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch, run: Any, model: str) -> Any:
    """Type these messages in a terminal: what is on stdout and stderr."""

    def typed(*messages: str, arguments: Sequence[str] = ()) -> tuple[str, str]:
        waiting = list(messages)

        def message(self: LineInput, *, start: str = "") -> str:
            if not waiting:
                raise EOFError
            text = waiting.pop(0)
            if text == CTRL_C:
                signal.raise_signal(signal.SIGINT)
            return start + text

        monkeypatch.setattr(LineInput, "message", message)
        monkeypatch.setattr(LineInput, "can_edit", lambda self: True)
        monkeypatch.setattr("sys.stdin", TerminalInput())
        code, out, err = run("chat", model, "--context", "200", *arguments)
        assert code == 0, err
        return out, err

    return typed


class TerminalInput(io.StringIO):
    def isatty(self) -> bool:
        return True


def kept() -> list[list[tuple[str, str]]]:
    """The messages of all conversations that are kept, oldest first."""
    paths = sorted(chat_files.folder_of_user().glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return [[(each.role, each.content) for each in chat_files.load(path)] for path in paths]


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


# ---- in a terminal ------------------------------------------------------------------------------------------


def test_a_conversation_in_a_terminal(types: Any, says: Any) -> None:
    says("Hello!", "I said\nhello.")
    out, err = types("hi", "", "what?", "/quit", "never")
    assert out == "Hello!\nI said\nhello.\n"
    assert "runs/tiny: turns of chatml, a context of 200 tokens" in err
    assert kept() == [[("user", "hi"), ("assistant", "Hello!"), ("user", "what?"), ("assistant", "I said\nhello.")]]
    assert f"next: alm chat runs/tiny --load {next(chat_files.folder_of_user().iterdir())}" in err


def test_commands_change_the_conversation(types: Any, says: Any) -> None:
    says("a1", "a2", "b1", "c1", "slash")
    out, err = types("a", "/retry", "b", "/undo", "/edit c", "//usr/bin", "/help")
    assert out == "a1\na2\nb1\nc1\nslash\n"
    assert "taken back: b" in err
    assert "/export PATH" in err
    assert kept() == [[("user", "c"), ("assistant", "c1"), ("user", "/usr/bin"), ("assistant", "slash")]]


def test_the_last_message_is_given_back_to_be_edited(types: Any, says: Any) -> None:
    says("one", "two")
    types("question", "/edit", "s")
    assert kept() == [[("user", "questions"), ("assistant", "two")]]


def test_settings_and_the_system_can_be_changed(types: Any, says: Any) -> None:
    says("a")
    _, err = types(
        "/system", "/system be brief", "/system", "/set tempature=1", "/set overflow=slide", "/set seed=7", "/set", "x"
    )
    assert "no text of the system\nbe brief\n" in err
    assert "did you mean `temperature`?" in err
    assert "the oldest turns of a conversation leave the context by themselves" in err
    assert "seed                7\n" in err
    assert kept() == [[("system", "be brief"), ("user", "x"), ("assistant", "a")]]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/retyr", "unknown command `/retyr` (did you mean `/retry`?)"),
        ("/usr/bin/env", "a message that begins with / is typed with //"),
        ("/undo", "the conversation has no message yet"),
        ("/save", "`/save` needs the path of a file"),
        ("/save x.jsonl", "the conversation has no message yet"),
        ("/load none.jsonl", "there is no file `none.jsonl`"),
        ("/load", "there is no other conversation"),
        ("x" * 300, "the message has 300 tokens"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_chat_goes_on(types: Any, says: Any, typed: str, told: str) -> None:
    says("fine")
    out, err = types(typed, "hello")
    assert told in err
    assert out == "fine\n"


def test_conversations_are_saved_loaded_and_exported(types: Any, says: Any) -> None:
    says("a1", "b1", "c1", "d1")
    saves, loads = "/save 'my talk.jsonl'", "/load 'my talk.jsonl'"
    out, err = types("a", saves, "/export talk.md", "/new", "b", saves, loads, "c", saves)
    assert "wrote my talk.jsonl; to load it: `/load 'my talk.jsonl'`" in err
    assert Path("talk.md").read_text("utf-8") == "## user\n\na\n\n## assistant\n\na1\n"
    assert out == "a1\nb1\n> b\nb1\nc1\n"
    assert kept() == [
        [("user", "a"), ("assistant", "a1")],
        [("user", "b"), ("assistant", "b1")],
        [("user", "b"), ("assistant", "b1"), ("user", "c"), ("assistant", "c1")],
    ]
    Path("mine.jsonl").write_text("precious")
    _, err = types("d", "/save mine.jsonl", arguments=["--load", "my talk.jsonl", "--system", "new"])
    assert "`mine.jsonl` exists already" in err
    assert Path("mine.jsonl").read_text() == "precious"
    assert kept()[-1] == [("system", "new"), *kept()[2], ("user", "d"), ("assistant", "d1")]


def test_nothing_is_kept_where_that_is_asked_for_or_impossible(types: Any, says: Any) -> None:
    says("a", "b", "c")
    types("hi", arguments=["--no-save"])
    assert not chat_files.folder_of_user().exists()
    chat_files.folder_of_user().parent.mkdir(parents=True)
    chat_files.folder_of_user().write_text("a file in its place")
    out, err = types("hi", "again")
    assert out == "b\nc\n"
    assert err.count("Warning: this conversation is not saved") == 1


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(types: Any, says: Any) -> None:
    says(f"one {CTRL_C} two")
    out, err = types("hi", "go on")
    assert out == "one \n two\n"
    assert "(stopped; /retry answers again)" in err
    (talk,) = kept()
    assert talk[:3] == [("user", "hi"), ("assistant", "one "), ("user", "go on")]
    row = json.loads(next(chat_files.folder_of_user().iterdir()).read_text("utf-8"))
    assert [message.get("weight") for message in row["messages"]] == [None, 0, None, None]


def test_ctrl_c_at_the_prompt_says_how_to_leave_then_leaves(types: Any, says: Any) -> None:
    says("a", "b")
    out, err = types(CTRL_C, "hi", CTRL_C, CTRL_C, "never")
    assert out == "a\n"
    assert err.count("Ctrl-C again, Ctrl-D or /quit leaves") == 2


def test_an_answer_that_is_cut_says_so(types: Any, says: Any) -> None:
    says("abcdef", "")
    out, err = types("hi", arguments=["--max-new-tokens", "3"])
    assert out == "abc\n"
    assert "(cut at 3 tokens; `/set max_tokens=6` allows more)" in err
    says("")
    assert "(an empty answer)" in types("hi")[1]


def test_turns_that_leave_the_context_are_named(types: Any, says: Any) -> None:
    says(*("a" * 20 for _ in range(4)))
    _, err = types(*("q" * 20 for _ in range(4)))
    assert "the context of 200 tokens is full: the oldest turn has left what the model sees" in err


# ---- without a terminal -------------------------------------------------------------------------------------


def test_all_of_stdin_is_one_message_and_the_answer_is_exact(
    run: Any, model: str, says: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (b"one\ntwo\n", b"\xef\xbb\xbfone\r\ntwo\r\n"):
        says("é\x1b]52;c;x\x07\n ")
        piped(monkeypatch, data)
        code, out, _ = run("chat", model, "--device", "cpu")
        assert (code, out) == (0, "é\x1b]52;c;x\x07\n \n")
        assert kept()[-1][0] == ("user", "one\ntwo")


def test_a_message_of_a_flag_needs_no_stdin(run: Any, model: str, says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    says("yes", "piped")
    piped(monkeypatch, b"from stdin")
    assert run("chat", model, "--once", "hi", "--no-save")[1] == "yes\n"
    assert run("chat", model, "--once", "-", "--no-save")[1] == "piped\n"


def test_json_has_an_object_for_each_message(run: Any, model: str, says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    says("a", "bé")
    piped(monkeypatch, b'{"role": "user", "content": "one"}\n\n{"content": "two\\n"}\n')
    code, out, err = run("chat", model, "--json", "--system", "be brief")
    assert (code, err) == (0, "")
    system, one, first, two, second = map(json.loads, out.splitlines())
    assert (system["role"], system["tokens"]) == ("system", 8)
    assert (one["role"], one["content"], one["tokens"]) == ("user", "one", 3)
    assert (first["role"], first["content"], first["tokens"], first["finish_reason"]) == ("assistant", "a", 1, "stop")
    assert (two["content"], second["content"], second["tokens"], second["seed"]) == ("two\n", "bé", 3, 1338)
    assert (first["kept_tokens"], second["kept_tokens"]) == (0, first["prompt_tokens"] + 1)
    assert second["turns_left_out"] == 0


def test_json_takes_plain_text_too(run: Any, model: str, says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    says("a")
    piped(monkeypatch, b"one\n{two}\n")
    question, answer = map(json.loads, run("chat", model, "--json", "--no-save")[1].splitlines())
    assert (question["content"], answer["content"]) == ("one\n{two}", "a")


@pytest.mark.parametrize(
    ("data", "arguments", "told"),
    [
        (b"\n", [], "stdin is empty"),
        (b"caf\xe9", [], "`stdin` is not UTF-8 at byte 3"),
        (b'{"content": "a"}\n{"content": 5}\n', ["--json"], "line 2 of stdin is not a message of a user"),
        (b"x", ["--once", " "], "the message is empty"),
        (b"x", ["--format", "chatlm"], "did you mean `chatml`"),
        (b"x" * 300, [], "the message has 300 tokens"),
        (b"x", ["--load", "none.jsonl"], "there is no file `none.jsonl`"),
    ],
)
def test_messages_that_cannot_be_sent(
    run: Any, model: str, says: Any, monkeypatch: pytest.MonkeyPatch, data: bytes, arguments: list[str], told: str
) -> None:
    says("a")
    piped(monkeypatch, data)
    code, _, err = run("chat", model, "--context", "200", *arguments)
    assert code in (1, 2)
    assert told in err


def test_models_that_cannot_talk_say_what_to_do(run: Any, model: str, made: Path, says: Any, tmp_path: Path) -> None:
    base = tmp_path / "runs" / "base"
    base.mkdir()
    for name in ("ckpt-last.pt", "tokenizer.json"):
        (base / name).symlink_to(made / name)
    code, _, err = run("chat", "runs/base", "--once", "hi")
    assert (code, "it was not trained on conversations" in err, "alm sample" in err) == (1, True, True)
    says(" Paris.\nUser: more")
    code, out, _ = run("chat", "runs/base", "--once", "hi", "--format", "plain")
    assert (code, out) == (0, "Paris.\n")
    for given, hint in (("org/model", "alm import org/model"), ("nothing", "alm runs")):
        code, _, err = run("chat", given, "--once", "hi")
        assert (code, hint in err) == (1, True)


def test_the_newest_model_is_used_and_named(run: Any, model: str, says: Any) -> None:
    says("a")
    code, out, err = run("chat", "--once", "hi", "--no-save")
    assert (code, out) == (0, "a\n")
    assert "using the newest run, `runs/tiny`" in err


def test_the_import_of_a_model_that_answers_proposes_to_talk_with_it(
    run: Any, model: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = artifacts.read(made / "import.json", artifacts.ImportMetadata, hint="")
    for chat, words in ((found.chat, "chat runs/x"), (None, "sample --checkpoint runs/x/ckpt-last.pt")):
        metadata = found.model_copy(update={"chat": chat})
        monkeypatch.setattr("alm.export.importing.import_model", lambda *_, made=metadata, **__: made)
        assert run("import", "x")[2] == f"next: alm {words}\n"


def test_saved_conversations_can_be_prepared_as_text(types: Any, says: Any, run: Any) -> None:
    says("The fox is in the den.", "Good night, little owl, and sleep well.")
    types("Where is the fox?", "Say good night.")
    code, _, err = run("corpus", "prepare", str(chat_files.folder_of_user()), "--workers", "1")
    assert code == 0, err
    (shard,) = Path("data/clean").rglob("*.txt")
    (text,) = [unescape(each.decode()) for each in read_records(io.BytesIO(shard.read_bytes()))]
    for part in ("Where is the fox?", "The fox is in the den.", "Say good night.", "sleep well."):
        assert part in text


# ---- lines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (["one\\", "two\\", "three"], "one\ntwo\nthree"),
        (['"""one', "two", 'three"""'], "one\ntwo\nthree"),
        (['"""', "  one", "", '"""'], "  one\n"),
        (['"""one"""'], "one"),
        (['/system """be', 'brief"""'], "/system be\nbrief"),
        (["one\\"], "one\\"),
        (['"""one'], "one"),
        (['say """x'], 'say """x'),
    ],
)
def test_messages_of_several_lines(lines: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = list(lines)

    def line(self: LineInput, prompt: str, *, start: str = "") -> str:
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    monkeypatch.setattr(LineInput, "_line", line)
    monkeypatch.setattr(line_input, "_is_more_waiting", lambda: False)
    assert LineInput().message() == message


def test_pasted_lines_stay_together_without_a_line_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = ["one", "two", "three"]
    monkeypatch.setattr(LineInput, "_line", lambda self, prompt, start="": waiting.pop(0))
    monkeypatch.setattr(line_input, "_editor", lambda: None)
    monkeypatch.setattr(line_input, "_is_more_waiting", lambda: len(waiting) > 1)
    assert (LineInput().message(), waiting) == ("one\ntwo", ["three"])


def test_words_are_not_broken() -> None:
    wrap = WordWrap(lambda: 10)
    pieces = [
        "The qu",
        "ick brown",
        " fox\n",
        "    jumps o",
        "ver 狐狸狐狸狐狸 antidisestablishmentarianism",
        " \x1b[2J",
    ]
    text = "".join(map(wrap.feed, pieces)) + wrap.finish()
    assert text == "The quick \nbrown fox\n    jumps \nover 狐狸\n狐狸狐狸 \nantidisestablishmentarianism \n\\x1b[2J"


# ---- a real terminal ----------------------------------------------------------------------------------------


class Terminal:
    """A program in a pseudo-terminal of 40 columns."""

    def __init__(self, *arguments: str) -> None:
        self._outer, inner = pty.openpty()
        command = [sys.executable, "-m", "alm", *arguments]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "40"}
        self.process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(inner)
        self.screen, self._read = "", 0

    def send(self, text: str) -> None:
        os.write(self._outer, text.encode())

    def press(self, key: str) -> None:
        """Send a key when the program waits for one."""
        self.until("> ")
        time.sleep(0.5)  # Readline shows its prompt just before it waits; it forgets a signal in between (CPython)
        self.send(key)

    def until(self, text: str, *, more: int = 0, seconds: float = 60) -> None:
        """Read until `text` is on the screen after what was read before, and `more` characters."""
        end = time.monotonic() + seconds
        while (place := self.screen.find(text, self._read)) < 0 or len(self.screen) < place + more:
            ready, _, _ = select.select([self._outer], [], [], max(end - time.monotonic(), 0))
            if not ready:
                self.process.kill()
                self.process.wait()
            assert ready, (text, self.screen[self._read :])
            self.screen += os.read(self._outer, 4096).decode("utf-8", "replace")
        self._read = place + len(text)

    def leave(self) -> int:
        with open(self._outer, "rb", buffering=0, closefd=True) as outer:  # noqa: PTH123 - a descriptor
            try:
                while outer.read(4096):
                    pass
            except OSError:  # the other end is closed
                pass
        return self.process.wait(60)


@pytest.mark.slow
def test_ctrl_c_in_a_real_terminal(model: str) -> None:
    terminal = Terminal("chat", model, "--temperature", "0", "--max-new-tokens", "19000")
    terminal.until("> ")
    terminal.send("hello\n")
    terminal.until("hello", more=60)
    terminal.send(CTRL_C)
    terminal.until("(stopped")
    terminal.until("> ")
    terminal.send("/quti\n")
    terminal.until("(did you mean `/quit`?)")
    terminal.press(CTRL_C)
    terminal.until("/quit leaves")
    terminal.press(CTRL_C)
    assert terminal.leave() == 0
    assert "\x1b]" not in terminal.screen
