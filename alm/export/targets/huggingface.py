"""Kind `huggingface`: a folder that `transformers` loads, of the family that can hold the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from alm import shown
from alm.artifacts import Comparison
from alm.export import chat_template, hf_config
from alm.export.config import TargetConfig
from alm.export.markdown import fenced
from alm.export.targets import _chat_template
from alm.files import write_bytes, write_json, write_text
from alm.generation.config import SamplingConfig
from alm.tokenizers.special import PADDING

if TYPE_CHECKING:
    from alm.export.source import Source
    from alm.tokenizers.file import Tokenizer

TOOL = "transformers"
WEIGHTS_NAME = "model.safetensors"


class Config(TargetConfig):
    """Settings of the kind: the type of the written numbers."""

    kind: Literal["huggingface"] = Field("huggingface", description="A folder for transformers, vLLM and others.")
    dtype: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="Type of the numbers in the file.")


def refusals(config: Config, source: Source) -> list[str]:
    """List what no family has, and what `dtype` cannot hold."""
    from alm.export.weights import too_large

    found = [*hf_config.refusals(source.model), *hf_config.vocabulary_refusals(source.model, source.tokenizer)]
    return found + too_large(source.weights, config.dtype)


def write(config: Config, source: Source, folder: Path) -> None:
    """Write the configuration, the weights, and the tokenizer with its settings for `transformers`."""
    from alm.export.weights import narrowed
    from alm.files.tensors import write_tensors

    tokenizer = source.tokenizer
    described = hf_config.config_json(source.model, tokenizer, ends=source.ends, dtype=config.dtype)
    write_json(folder / "config.json", described)
    write_json(folder / "generation_config.json", _generation(source))
    write_tensors(folder / WEIGHTS_NAME, narrowed(source.weights, config.dtype))
    write_bytes(folder / "tokenizer.json", source.tokenizer_path.read_bytes())
    write_json(folder / "tokenizer_config.json", _tokenizer(tokenizer, source.model.max_position_embeddings))
    kept = chat_template.read_beside(source.path.parent)
    if kept not in (None, _chat_template.TEXT):  # of the model that this one was imported from
        write_text(folder / _chat_template.NAME, kept)
    elif _chat_template.has_turns(tokenizer):
        write_text(folder / _chat_template.NAME, _chat_template.TEXT)
        training = folder / _chat_template.TRAINING_NAME
        training.parent.mkdir()
        write_text(training, _chat_template.TRAINING)


def _generation(source: Source) -> dict[str, Any]:  # Any: JSON
    """Build settings with which `generate` does what `alm sample` does by default."""
    chosen, known = SamplingConfig(), source.tokenizer.vocab_size
    spare = list(range(known, source.model.known_vocab_size))
    return {
        **hf_config.token_ids(source.tokenizer, source.ends),
        "do_sample": True,
        "temperature": chosen.temperature,
        "top_k": chosen.top_k,
        # Ids of the model for which the tokenizer has no text.
        **({"suppress_tokens": spare} if spare else {}),
    }


def _tokenizer(tokenizer: Tokenizer, context: int) -> dict[str, Any]:  # Any: JSON
    names, begin = {id_: name for name, id_ in tokenizer.specials.items()}, tokenizer.begin_of_text_id
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names[tokenizer.end_of_text_id if begin is None else begin],
        "eos_token": names[tokenizer.end_of_text_id],
        **({"pad_token": PADDING} if PADDING in tokenizer.specials else {}),
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }


def compare(config: Config, source: Source, folder: Path) -> list[Comparison]:
    """Compare the folder in `transformers`: ids, logits, greedy text, bits per byte."""
    from alm.export.targets import _transformers

    return _transformers.compare(source, folder, dtype=config.dtype)


def usage(config: Config, source: Source, name: str) -> str:
    """Explain how to load the folder, in Markdown."""
    quoted, tokenizer = shown.as_json(name), source.tokenizer
    end = next(name for name, id_ in tokenizer.specials.items() if id_ == tokenizer.end_of_text_id)
    program = f"""from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({quoted})
model = AutoModelForCausalLM.from_pretrained({quoted}, dtype="auto")
ids = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=50)[0]))"""
    return f"""{fenced("python", program)}

In text from strangers give `split_special_tokens=True` to the tokenizer: it then reads `{end}` and its like as
the text that they are, as `alm` always does."""
