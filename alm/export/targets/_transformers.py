"""Comparison of an exported folder in `transformers` with this alm. B rows, T tokens, V vocabulary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from alm import shown
from alm.artifacts import Comparison
from alm.errors import ArtifactError
from alm.export import compare as questions
from alm.export import optional_tools
from alm.export.held_out import HeldOut, held_out
from alm.export.source import Source
from alm.export.weights import narrowed
from alm.model.transformer import Transformer

LEAST_VERSION = 5  # the oldest version this was tested with


def compare(source: Source, folder: Path, *, dtype: str, unsaid: Sequence[int] | None = None) -> list[Comparison]:
    """Make all comparisons. Both sides hold the written numbers, in fp32: the cost of rounding is reported separately.

    `unsaid` are ids that greedy text must not contain, and replaces the folder's generation settings; None keeps those.
    Raises `UnusableToolError` without `transformers`, and `ArtifactError` if it cannot load the folder.
    """
    transformers = _library()
    network = source.network
    if dtype != "fp32":
        network = source.network_of({name: t.float() for name, t in narrowed(source.weights, dtype).items()})
    tool = f"transformers {transformers.__version__}"
    with quiet(transformers.utils.logging):
        tokenizer, model = _loaded(transformers, folder)
        if unsaid is not None:
            model.generation_config = transformers.GenerationConfig()
        found = [
            questions.ids(source, tool, lambda text: _encoded(tokenizer, text)),
            questions.logits(source, network, tool, lambda ids: _logits(model, torch.tensor([ids]))[0]),
            questions.greedy(source, network, tool, lambda ids, tokens: _greedy(source, model, ids, tokens, unsaid)),
        ]
        text = held_out(source)
        if text is not None:
            found += _scores(source, network, model, text, tool, dtype)
    return found


def _library() -> Any:  # Any: most of it has no types
    return optional_tools.load("transformers", least=LEAST_VERSION)


def _loaded(transformers: Any, folder: Path) -> tuple[Any, Any]:
    """Load the tokenizer and the model in `folder`; `ArtifactError` if the library refuses them."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    # The library's classes check their input in many ways, without an error class of their own.
    plain = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (*plain, TypeError, ValueError, StrictDataclassError, SafetensorError) as error:
        fault = shown.reason(error)[:300]
        raise ArtifactError(
            f"`transformers` {transformers.__version__} cannot load `{folder}`: {type(error).__name__}: {fault}",
            hint="add `--no-compare` to skip the comparison",
        ) from error
    return tokenizer, model.eval()


@contextlib.contextmanager
def quiet(logging: Any) -> Iterator[None]:
    """Silence the library's progress bars and messages, which would mix with ours."""
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def _encoded(tokenizer: Any, text: str) -> list[int]:
    return cast("list[int]", tokenizer(text, split_special_tokens=True)["input_ids"])


@torch.inference_mode()
def _logits(model: Any, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
    return cast(Tensor, model(ids, use_cache=False).logits.float())


def _greedy(source: Source, model: Any, prompt: list[int], tokens: int, unsaid: Sequence[int] | None) -> list[int]:
    made = model.generate(
        torch.tensor([prompt]),
        do_sample=False,
        temperature=None,
        top_k=None,
        max_new_tokens=tokens,
        eos_token_id=source.tokenizer.end_of_text_id,
        **({"suppress_tokens": list(unsaid)} if unsaid else {}),
    )
    return cast("list[int]", made[0, len(prompt) :].tolist())


def _scores(source: Source, network: Transformer, model: Any, text: HeldOut, tool: str, dtype: str) -> list[Comparison]:
    def their_losses(inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(_logits(model, inputs).transpose(1, 2), targets.clamp_min(0), reduction="none")

    found = questions.bits_per_byte(text, network, tool, their_losses)
    return [*found, *questions.rounding(text, source.network, network, dtype)]
