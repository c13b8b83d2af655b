"""The loop of `alm chat` in a terminal: messages, answers and the commands between them."""

from __future__ import annotations

import contextlib
import shlex
import sys
from datetime import datetime
from pathlib import Path
from time import monotonic

from alm import shown
from alm.cli import ui
from alm.cli.event_lines import one_line
from alm.cli.line_input import HELP as LINES
from alm.cli.line_input import Interrupts, LineInput
from alm.cli.word_wrap import WordWrap
from alm.config.base import did_you_mean
from alm.errors import AlmError, InputError, quoted
from alm.generation import chat_files
from alm.generation.chat import Answer, ChatMessage, Conversation

_HELP = f"""\
Type a message.
{LINES}

/undo             take back the last message and its answer
/retry            answer the last message again, with the next seed
/edit [TEXT]      change the last message, and answer it
/system [TEXT]    show or set the text of the system
/set [KEY=VALUE]  show the settings, or change one: /set temperature=0.5
/new              begin another conversation; /clear does the same
/save PATH        write the conversation as a row for training and /load
/load [PATH]      continue a saved conversation; without PATH, the newest
/export PATH      write the conversation as Markdown, to read
/help             show this help
/quit             leave; Ctrl-D does the same
//TEXT            send a message that begins with /
Ctrl-C stops an answer."""
_LEAVES = "Ctrl-C again, Ctrl-D or /quit leaves"
_SAVE_SECONDS = 2.0  # while an answer comes


class Saving:
    """Keeps a conversation in a file of the user's folder as it grows."""

    def __init__(self, model: str, *, is_on: bool) -> None:
        self._model, self._is_on = model, is_on
        self.path: Path | None = None
        self._saved = 0.0

    def begin(self) -> None:
        """Use another file from now on."""
        self.path = None

    def save(self, conversation: Conversation, *, after: float = 0.0) -> None:
        """Write the conversation, unless less than `after` seconds have passed. A failure is a warning, once."""
        if not self._is_on or not conversation.messages or monotonic() - self._saved < after:
            return
        folder = chat_files.folder_of_user()
        try:
            if self.path is None:
                self.path = chat_files.new_path(folder, self._model, now=datetime.now())
            chat_files.save(self.path, conversation.all())
        except (OSError, AlmError) as error:
            self._is_on = False
            reason = error.message if isinstance(error, AlmError) else shown.reason(error)
            ui.echo_err(f"Warning: this conversation is not saved: {shown.message(reason)} (hint: `/save PATH`)")
        self._saved = monotonic()


def stream(conversation: Conversation, pieces: Answer, saving: Saving) -> Answer:
    """Yield the answer as it comes; save the question before it, and the answer meanwhile."""
    saving.save(conversation)
    with contextlib.closing(pieces):
        for piece in pieces:
            yield piece
            saving.save(conversation, after=_SAVE_SECONDS)


class ChatLoop:
    """A conversation in the terminal."""

    def __init__(self, conversation: Conversation, saving: Saving, *, quiet: bool, verbose: bool) -> None:
        self._talk, self._saving, self._quiet, self._verbose = conversation, saving, quiet, verbose
        self._input, self._interrupts = LineInput(), Interrupts()
        self._written: set[Path] = set()  # by /save and /export, which may write these again
        self._start = ""  # of the next line, for /edit
        self._wraps = sys.stdout.isatty()

    def run(self) -> None:
        """Talk until the person leaves."""
        asked_to_leave = False
        with self._interrupts.handled():
            while True:
                try:
                    with self._interrupts.allowed():
                        start, self._start = self._start, ""
                        text = self._input.message(start=start)
                except EOFError:
                    ui.echo_err("")
                    return
                except KeyboardInterrupt:
                    ui.echo_err("")
                    if asked_to_leave and not self._interrupts.line:
                        return
                    if not self._interrupts.line:
                        ui.echo_err(_LEAVES)
                    asked_to_leave = not self._interrupts.line
                    continue
                asked_to_leave = False
                if not self._handle(chat_files.clean(text)):
                    return

    def _handle(self, text: str) -> bool:
        """Do what was typed; False to leave."""
        try:
            if text.startswith("/") and not text.startswith("//"):
                return self._command(text)
            if text.strip():
                self._answer(self._talk.ask(text[1:] if text.startswith("//") else text))
        except AlmError as error:
            ui.show_error(error)
        return True

    def _command(self, text: str) -> bool:
        parts = text.split(maxsplit=1)
        name, argument = parts[0], parts[1] if len(parts) > 1 else ""
        if name in ("/quit", "/exit", "/bye"):
            return False
        commands = {
            "/undo": self._undo,
            "/retry": self._retry,
            "/edit": self._edit,
            "/system": self._system,
            "/set": self._set,
            "/new": self._new,
            "/clear": self._new,
            "/save": self._save,
            "/load": self._load,
            "/export": self._export,
            "/help": self._help,
        }
        if name not in commands:
            known = [*commands, "/quit"]
            hint = "type `/help` for all; a message that begins with / is typed with //"
            raise InputError(f"unknown command `{name}`{did_you_mean(name, known)}", hint=hint)
        commands[name](argument)
        return True

    def _answer(self, pieces: Answer) -> None:
        """Print an answer as it comes, and how it ended if that was not by itself."""
        wrap = WordWrap()
        answer = stream(self._talk, pieces, self._saving)
        with contextlib.closing(answer), contextlib.suppress(KeyboardInterrupt), self._interrupts.allowed():
            for piece in answer:
                ui.write_exact(wrap.feed(piece) if self._wraps else piece)
        self._saving.save(self._talk)
        ui.write_exact(wrap.finish() + "\n")
        self._show_end()

    def _show_end(self) -> None:
        reply = self._talk.reply
        if reply is None:
            return
        ends = {
            "interrupted": "(stopped; /retry answers again)",
            "length": f"(cut at {reply.tokens:,} tokens; `/set max_tokens={2 * reply.tokens}` allows more)",
            "context": f"(cut: the context of {self._talk.model.context:,} tokens is full)",
        }
        if reply.end in ends:
            ui.echo_err(ends[reply.end])
        elif not reply.tokens:
            ui.echo_err("(an empty answer)")
        if self._verbose:
            rate = reply.tokens / max(reply.seconds - reply.first_seconds, 1e-9)
            read = reply.prompt_tokens - reply.kept_tokens
            ui.echo_err(
                f"{reply.prompt_tokens:,} tokens seen, {read:,} of them new, {reply.tokens:,} written, "
                f"{rate:,.0f} tok/s, first after {reply.first_seconds:.2f} s, seed {reply.seed}"
            )

    def _undo(self, argument: str) -> None:
        ui.echo_err(f"taken back: {one_line(self._talk.undo().content)}")
        self._saving.save(self._talk)

    def _retry(self, argument: str) -> None:
        self._answer(self._talk.retry())

    def _edit(self, argument: str) -> None:
        if argument:
            self._answer(self._talk.edit(argument))
            return
        found = [message for message in self._talk.messages if message.role == "user"]
        if not found or not self._input.can_edit():
            raise InputError("there is no message to edit here", hint="type `/edit` and the new text after it")
        self._start = f"/edit {found[-1].content}"

    def _system(self, argument: str) -> None:
        if argument:
            self._talk.set_system(argument)
            self._saving.save(self._talk)
        else:
            own = self._talk.model.format.default_system
            given = self._talk.system if self._talk.system is not None else own
            ui.echo_err("no text of the system" if given is None else shown.text(given))

    def _set(self, argument: str) -> None:
        from alm.config.load import load
        from alm.generation.config import ChatConfig

        settings = self._talk.sampling.model_dump()
        if argument:
            typed = {argument: f"/set {argument}"}
            hint = "type `/set` to see every setting with its value"
            self._talk.set_sampling(load(ChatConfig, [], base=settings, overrides=[*typed], typed=typed, hint=hint))
        else:
            ui.echo_err(
                "\n".join(ui.table([(key, str(value)) for key, value in settings.items() if key != "overflow"]))
            )

    def _new(self, argument: str) -> None:
        self._talk.replace(self._talk.all()[:1] if self._talk.system is not None else [])
        self._saving.begin()

    def _save(self, argument: str) -> None:
        path = self._free(argument, "/save")
        chat_files.save(path, self._messages())
        self._wrote(path, f"to load it: `/load {quoted(path)}`")

    def _export(self, argument: str) -> None:
        from alm import files

        path = self._free(argument, "/export")
        files.write_text(path, chat_files.page(self._messages()))
        self._wrote(path, "to read")

    def _messages(self) -> list[ChatMessage]:
        if not self._talk.messages:
            raise InputError("the conversation has no message yet", hint="type one")
        return self._talk.all()

    def _free(self, argument: str, command: str) -> Path:
        """Return the path to write; InputError for a file that this conversation did not write."""
        if not argument:
            raise InputError(f"`{command}` needs the path of a file", hint=f"type `{command} conversation.jsonl`")
        path = _path(argument)
        if path.exists() and path not in self._written:
            raise InputError(f"`{path}` exists already", hint="choose another name")
        return path

    def _wrote(self, path: Path, what: str) -> None:
        self._written.add(path)
        if not self._quiet:
            ui.echo_err(f"wrote {shown.line(str(path))}; {what}")

    def _load(self, argument: str) -> None:
        folder = chat_files.folder_of_user()
        path = _path(argument) if argument else chat_files.newest(folder, besides=self._saving.path)
        self._talk.replace(chat_files.load(path))
        self._saving.begin()
        ui.echo_err(f"continuing {shown.line(str(path))}")
        for message in self._talk.messages:
            text, wrap = ("> " if message.role == "user" else "") + message.content, WordWrap()
            ui.write_exact((wrap.feed(text) + wrap.finish() if self._wraps else text) + "\n")

    def _help(self, argument: str) -> None:
        ui.echo_err(_HELP)


def _path(argument: str) -> Path:
    """Return the path that was typed, perhaps quoted as for a shell."""
    try:
        words = shlex.split(argument, posix=sys.platform != "win32")
    except ValueError:
        words = []
    return Path(words[0] if len(words) == 1 else argument).expanduser()
