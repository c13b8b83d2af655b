"""llama.cpp, through the package xllamacpp: a server in this process that listens on loopback alone.

T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from alm import shown
from alm.errors import ArtifactError
from alm.files import parse_json

PACKAGE = "xllamacpp"
_ALWAYS = 1e9
"""Added to a score: no other token comes."""
_MOST_BYTES = 1 << 28
_SECONDS = 600
"""How long one answer may take: minutes for a large model on few cores."""


class LlamaCpp:
    """A model in llama.cpp, asked by id or by text."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, nothing added, and nothing in it read as a special token."""
        ids: list[int] = self._ask("/tokenize", content=text, add_special=False, parse_special=False)["tokens"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`."""
        text: str = self._ask("/detokenize", tokens=list(ids))["content"]
        return text

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the file's chat template makes of `messages`."""
        prompt: str = self._ask("/apply-template", messages=messages)["prompt"]
        return prompt

    def greedy(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """The ids of the likeliest continuation, `tokens` long or up to and with an end."""
        ids: list[int] = self.complete(prompt, tokens)["tokens"]
        return ids

    def log_probabilities(self, prompt: Sequence[int], *, end: int, vocab_size: int) -> Tensor:
        """ln p (V,) of every token behind the prompt, fp32; `end` is the id that ends a text."""
        # The server tells of no token that is half a character, so the end is made to be chosen: that is done to a
        # copy, and what is told are the scores of the model.
        found = self.complete(prompt, 1, n_probs=vocab_size, logit_bias=[[end, _ALWAYS]])
        listed = found["completion_probabilities"][0]["top_logprobs"]
        values = torch.full((vocab_size,), -torch.inf)
        values[[token["id"] for token in listed]] = torch.tensor([token["logprob"] for token in listed])
        return values

    def complete(self, prompt: Sequence[int], tokens: int, **options: object) -> dict[str, Any]:  # Any: JSON
        """The answer of `/completion`, greedy unless `options` say otherwise, with nothing kept from before."""
        fixed = {"temperature": 0, "return_tokens": True, "cache_prompt": False}
        return self._ask("/completion", prompt=list(prompt), n_predict=tokens, **{**fixed, **options})

    def _ask(self, path: str, **question: object) -> dict[str, Any]:  # Any: as JSON has it
        # A connection for each question: the server hangs up after seconds without one, which we may need to think.
        with closing(HTTPConnection(self._host, self._port, timeout=_SECONDS)) as connection:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", path, json.dumps(question), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = parse_json(response.read(_MOST_BYTES))
        assert response.status == 200, answer
        return answer


@contextmanager
def serving(path: Path, *, context: int) -> Iterator[LlamaCpp]:
    """The model in the file `path` for sequences of `context` tokens; nothing of it runs on afterwards.

    Raises `ArtifactError` when llama.cpp cannot load the file.
    """
    import xllamacpp

    try:
        server = xllamacpp.Server(_parameters(path, context))
    except RuntimeError as error:
        raise ArtifactError(
            f"llama.cpp cannot load `{path.name}`: {shown.reason(error)}", hint=f"pip install --upgrade {PACKAGE}"
        ) from error
    address = urlsplit(server.listening_address)
    assert address.hostname is not None
    assert address.port is not None
    try:
        llama = LlamaCpp(address.hostname, address.port)
        # Answered by the loop that closing ends, and only once it runs: one that begins after it was to end goes on for
        # ever. What needs no model is answered without it.
        llama.complete([0], 1)
        yield llama
    finally:
        del server  # the last reference: it stops its threads and closes its port


def _parameters(path: Path, context: int) -> Any:  # Any: the package has no types
    """Everything in fp32 on the CPU, as in `alm`: by default llama.cpp keeps keys and values in fp16."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx, parameters.n_parallel = context, 1
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = torch.get_num_threads()
    parameters.n_gpu_layers, parameters.fit_params = 0, False
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_ram_mib, parameters.warmup, parameters.ui = 0, False, False
    parameters.hostnames, parameters.port, parameters.n_threads_http = ["127.0.0.1"], 0, 1
    parameters.verbosity = -1
    return parameters


def tool() -> str:
    """llama.cpp as it is called in a comparison."""
    return f"llama.cpp in {PACKAGE} {version(PACKAGE)}"
