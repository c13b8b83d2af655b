"""Comparison of a folder in `transformers` with this alm. B rows, T tokens, S of them scored, V vocabulary."""

from __future__ import annotations

import contextlib
import gc
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
from alm.export.hf_config import FAMILIES
from alm.export.source import Source
from alm.export.weights import StoredWeights, round_values

LEAST_VERSION = 5  # the oldest version this was tested with


def compare(source: Source, folder: Path, *, dtype: str, unsaid: Sequence[int] | None = None) -> list[Comparison]:
    """Make all comparisons. Both sides hold the written numbers, in fp32: the cost of rounding is reported separately.

    `unsaid` are ids that greedy text must not contain, and replaces the folder's generation settings; None keeps those.
    Raises `UnusableToolError` without `transformers`, and `ArtifactError` if it cannot load the folder.
    """
    transformers = _library()
    text = held_out(source)
    with quiet(transformers.utils.logging):
        checks = _asked(source, transformers, folder, text, unsaid)
    gc.collect()  # the library's model refers to itself
    network = source.network
    if dtype != "fp32":
        rounding = [] if text is None else [questions.rounding(text, network, dtype)]
        round_values(network.state_dict(), dtype)
        checks += rounding
    found = [check(network) for check in checks]
    del network  # its place is needed for the library's tokenizer
    with quiet(transformers.utils.logging):
        return [_ids(source, transformers, folder), *found]


def _ids(source: Source, transformers: Any, folder: Path) -> Comparison:
    with _loading(transformers, folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return questions.ids(source, _tool(transformers), lambda text: _encoded(tokenizer, text))


def _asked(
    source: Source, transformers: Any, folder: Path, text: HeldOut | None, unsaid: Sequence[int] | None
) -> list[questions.Check]:
    """Ask the library's model, which is gone afterwards."""
    with _loading(transformers, folder):
        model = _model(transformers, folder)
    if unsaid is not None:
        model.generation_config = transformers.GenerationConfig()
    tool = _tool(transformers)

    def losses(inputs: Tensor, targets: Tensor) -> Tensor:
        scores = _logits(model, inputs, 0).transpose(1, 2)
        return F.cross_entropy(scores, targets.clamp_min(0), reduction="none")

    found = [
        questions.logits(source, tool, lambda ids, last: _logits(model, torch.tensor([ids]), last)[0]),
        questions.greedy(source, tool, lambda ids, tokens: _greedy(source, model, ids, tokens, unsaid)),
    ]
    return found if text is None else [*found, questions.bits_per_byte(text, tool, losses)]


def _library() -> Any:  # Any: most of it has no types
    return optional_tools.load("transformers", least=LEAST_VERSION)


def _tool(transformers: Any) -> str:
    return f"transformers {transformers.__version__}"


@contextlib.contextmanager
def _loading(transformers: Any, folder: Path) -> Iterator[None]:
    """Raise `ArtifactError` if the library refuses the folder."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    # The library's classes check their input in many ways, without an error class of their own.
    plain = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError)
    try:
        yield
    except (*plain, TypeError, ValueError, StrictDataclassError, SafetensorError) as error:
        fault = shown.reason(error)[:300]
        raise ArtifactError(
            f"`transformers` {transformers.__version__} cannot load `{folder}`: {type(error).__name__}: {fault}",
            hint="add `--no-compare` to skip the comparison",
        ) from error


def _model(transformers: Any, folder: Path) -> Any:
    """Return the library's model of the folder. It gets the tensors: the library would map whole files into memory."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = getattr(transformers, f"{FAMILIES[config.model_type]}ForCausalLM")
    tensors = dict(StoredWeights.of(folder).tensors())
    model = kind.from_pretrained(None, config=config, state_dict=tensors, dtype=torch.float32)
    with contextlib.suppress(OSError):  # a folder of others may have none
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.eval()


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
def _logits(model: Any, ids: Tensor, last: int) -> Tensor:  # (B, T) -> (B, S, V), of all T if `last` is 0
    return cast(Tensor, model(ids, use_cache=False, logits_to_keep=last).logits.float())


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
