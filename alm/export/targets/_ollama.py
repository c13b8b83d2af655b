"""An Ollama Modelfile beside a GGUF file: the model's turns as a template of Go, where answers end, and settings.

Syntax: docs/modelfile.mdx, docs/template.mdx and parser/parser.go of Ollama. Ollama gives a template the messages in
their order, with their roles, and takes messages of the same role in a row as one. `$i` is the number of a message.
"""

from __future__ import annotations

import contextlib
import re

from alm.errors import ConfigError
from alm.export.source import Source
from alm.generation.config import ChatConfig
from alm.tokenizers import chat_format
from alm.tokenizers.chat_format import ChatFormat, Turn
from alm.tokenizers.file import Tokenizer

NAME = "Modelfile"
MOST_CONTEXT = 8192
"""Tokens of context that are asked for: Ollama reserves memory for all of them, on a machine that is not known here."""


def modelfile(file_name: str, source: Source) -> str | None:
    """Return the Modelfile for the GGUF file of this name; None for a model without a turn format that is known here.

    None too if the name cannot stand in such a file.
    """
    chat = _format(source)
    if chat is None or not file_name.isprintable():
        return None
    sampling = ChatConfig()
    parameters = {
        "num_ctx": min(source.model.max_position_embeddings, MOST_CONTEXT),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "repeat_penalty": sampling.repetition_penalty,
    }
    lines = [f"PARAMETER {name} {value:g}" for name, value in parameters.items()]
    lines += [f'PARAMETER stop "{stop}"' for stop in _stops(chat, source)]
    return "\n".join(
        [f"FROM ./{file_name}", f'TEMPLATE """{template(chat, added=_added(source.tokenizer))}"""', *lines, ""]
    )


def _format(source: Source) -> ChatFormat | None:
    """Return the turn format. A template of no known form is in the GGUF file, from which Ollama takes it."""
    with contextlib.suppress(ConfigError):
        return chat_format.beside(source.tokenizer_path, source.tokenizer)
    return None


def _stops(chat: ChatFormat, source: Source) -> list[str]:
    """Return the names of tokens that end an answer: those of its own end, the ends of a text, beginnings of turns.

    A name that a Modelfile cannot hold is left out: llama.cpp stops at the ids that the GGUF file lists anyway.
    """
    tokenizer = source.tokenizer
    names = {id_: name for name, id_ in {**tokenizer.found_in_text, **tokenizer.specials}.items()}
    turns = "".join(turn.before + turn.after for turn in _turns(chat).values())
    ends = [names[id_] for id_ in (*chat.end_ids(tokenizer), *source.ends) if id_ in names]
    begins = [name for name in tokenizer.specials if name in turns]
    return [name for name in dict.fromkeys([*ends, *begins]) if name.isprintable() and '"' not in name]


def _added(tokenizer: Tokenizer) -> str:
    """Return the begin-of-text token if llama.cpp puts it before a prompt, as the GGUF file says; else nothing."""
    begin = tokenizer.begin_of_text_id
    return "" if begin is None else tokenizer.token_names[begin]


def template(chat: ChatFormat, *, added: str = "") -> str:
    """Return the template of Go that writes what `chat.render` writes, but for `added`, which is put before that.

    Where `chat.strips`, it keeps the blanks around texts: the templates of Ollama have no function that removes them.
    """
    branches = [f'if eq .Role "{role}" }}}}{_message(chat, role, added)}' for role in _turns(chat)]
    message = _default_system(chat) + "{{ " + "{{ else ".join(branches) + _do("end")
    loop = _do("range $i, $_ := .Messages") + message + _do("end")
    return _text(chat.begin.removeprefix(added)) + loop + _text(chat.opening)


def _turns(chat: ChatFormat) -> dict[str, Turn]:
    """Return the turns by role."""
    turns = {"system": chat.system, "user": chat.user, "assistant": chat.assistant, "tool": chat.tool}
    return {role: turn for role, turn in turns.items() if turn is not None}


def _message(chat: ChatFormat, role: str, added: str) -> str:
    """Return what writes a message of the role."""
    turn = _turns(chat)[role]
    before = _text(turn.before)
    if added and turn.before.startswith(added):  # the first turn of a user comes first, or after that of the system
        before = _if("gt $i 1", _text(added)) + _text(turn.before.removeprefix(added))
    if role == "system":
        before += _if("eq $i 0", _text(chat.before_system))
    if role == "user" and chat.within_user is not None:
        within = _text(chat.within_user.before) + _do("$.System") + _text(chat.within_user.after)
        before += _if("and $.System (eq $i 1)", within)
    return before + _do(".Content") + _text(turn.after)


def _default_system(chat: ChatFormat) -> str:
    """Return what writes the system's turn of a conversation without a message of the system."""
    if chat.system is None or (chat.default_system is None and not chat.before_system):
        return ""
    text = chat.system.before + chat.before_system + (chat.default_system or "") + chat.system.after
    return _if('and (eq $i 0) (ne .Role "system")', _text(text))


def _do(action: str) -> str:
    return "{{ " + action + " }}"


def _if(condition: str, then: str) -> str:
    return _do(f"if {condition}") + then + _do("end") if then else ""


def _text(text: str) -> str:
    """Return what writes `text`: itself, or a string of Go where Go or Ollama would read it differently.

    Braces begin an action, quotes can end the template, and Ollama drops characters that cannot be printed.
    """
    if re.fullmatch(r"[\n !#-z|~]*", text):
        return text
    return _do('"' + re.sub(r"[^ !#-\[\]-z|~]", lambda found: f"\\U{ord(found[0]):08x}", text) + '"')
