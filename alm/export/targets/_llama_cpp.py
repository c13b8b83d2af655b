"""llama.cpp through the package xllamacpp: a server in this process that listens only on loopback.

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
"""Added to a score so that no other token is chosen."""
MOST_TOKENS = 1 << 15
"""Tokens whose probability is asked for: an answer takes a kilobyte of memory for each."""
_MOST_BYTES = 1 << 28
_BATCH = 64
"""Tokens that are read at once. Scores of a large vocabulary for 512, as llama.cpp has it, take 300 MB."""
_SECONDS = 600
"""Timeout of one answer: a large model on few cores takes minutes."""


class LlamaCpp:
    """Client of a model in llama.cpp."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def encode(self, text: str) -> list[int]:
        """Encode `text`, without added ids, and without reading special tokens from it."""
        ids: list[int] = self._ask("/tokenize", content=text, add_special=False, parse_special=False)["tokens"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Decode `ids`."""
        text: str = self._ask("/detokenize", tokens=list(ids))["content"]
        return text

    def chat(self, messages: list[dict[str, str]]) -> str:
        """Apply the file's chat template to `messages`."""
        prompt: str = self._ask("/apply-template", messages=messages)["prompt"]
        return prompt

    def greedy(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """Continue the prompt greedily: `tokens` ids, or up to and including an end."""
        ids: list[int] = self.complete(prompt, tokens)["tokens"]
        return ids

    def log_probabilities(self, prompt: Sequence[int], *, end: int, vocab_size: int) -> Tensor:
        """Return ln p (V,) of the likeliest tokens after the prompt, fp32, and -inf for others: at most `MOST_TOKENS`.

        `end` is the id that ends a text.
        """
        # The server does not report a chosen token that is half a character, so a bias makes it choose the end. The
        # bias is added to a copy: the reported scores are the model's own.
        found = self.complete(prompt, 1, n_probs=min(vocab_size, MOST_TOKENS), logit_bias=[[end, _ALWAYS]])
        listed = found["completion_probabilities"][0]["top_logprobs"]
        values = torch.full((vocab_size,), -torch.inf)
        values[[token["id"] for token in listed]] = torch.tensor([token["logprob"] for token in listed])
        return values

    def complete(self, prompt: Sequence[int], tokens: int, **options: object) -> dict[str, Any]:  # Any: JSON
        """Return the answer of `/completion`, greedy unless `options` change that, without a prompt cache."""
        fixed = {"temperature": 0, "return_tokens": True, "cache_prompt": False}
        return self._ask("/completion", prompt=list(prompt), n_predict=tokens, **{**fixed, **options})

    def _ask(self, path: str, **question: object) -> dict[str, Any]:  # Any: as JSON has it
        # A connection for each request: the server closes an idle one after seconds, and we may compute for longer.
        with closing(HTTPConnection(self._host, self._port, timeout=_SECONDS)) as connection:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", path, json.dumps(question), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = parse_json(response.read(_MOST_BYTES))
        assert response.status == 200, answer
        return answer


@contextmanager
def serving(path: Path, *, context: int, adapter: Path | None = None) -> Iterator[LlamaCpp]:
    """Serve the model in the file `path` for sequences of `context` tokens, and stop the server afterwards.

    The LoRA in the file `adapter` is added to it. Raises `ArtifactError` if llama.cpp cannot load the files.
    """
    import xllamacpp

    try:
        server = xllamacpp.Server(_parameters(path, context, adapter))
    except RuntimeError as error:
        raise ArtifactError(
            f"llama.cpp cannot load `{(adapter or path).name}`: {shown.reason(error)}",
            hint=f"pip install --upgrade {PACKAGE}",
        ) from error
    address = urlsplit(server.listening_address)
    assert address.hostname is not None
    assert address.port is not None
    try:
        llama = LlamaCpp(address.hostname, address.port)
        # Wait until the server's main loop runs: if the server is closed before its loop starts, the loop never ends.
        # Only requests that need the model are answered by that loop.
        llama.complete([0], 1)
        yield llama
    finally:
        del server  # the last reference: the server stops its threads and closes its port


def _parameters(path: Path, context: int, adapter: Path | None) -> Any:  # Any: the package has no types
    """Build parameters with everything in fp32 on the CPU, as in `alm`: llama.cpp's cache is fp16 by default."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    if adapter is not None:
        parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    parameters.n_ctx, parameters.n_parallel = context, 1
    parameters.n_batch = parameters.n_ubatch = _BATCH
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = torch.get_num_threads()
    parameters.n_gpu_layers, parameters.fit_params = 0, False
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.cache_ram_mib, parameters.warmup, parameters.ui = 0, False, False
    parameters.hostnames, parameters.port, parameters.n_threads_http = ["127.0.0.1"], 0, 1
    parameters.verbosity = -1
    return parameters


def tool() -> str:
    """Return the name and version of llama.cpp for a comparison."""
    return f"llama.cpp in {PACKAGE} {version(PACKAGE)}"
