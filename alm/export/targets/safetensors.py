"""Kind `safetensors`: the weights under their own names, with the configuration and the tokenizer. Any model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from alm import shown
from alm.artifacts import Comparison
from alm.config.yaml_files import write_yaml
from alm.export.config import TargetConfig
from alm.export.markdown import fenced
from alm.export.source import Source
from alm.files import write_bytes, write_text

TOOL = "safetensors"
WEIGHTS_NAME, CONFIG_NAME, TOKENIZER_NAME = "model.safetensors", "config.yaml", "tokenizer.json"


class Config(TargetConfig):
    """Settings of the kind: the type of the written numbers."""

    kind: Literal["safetensors"] = Field("safetensors", description="The bare weights, for your own programs.")
    dtype: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="Type of the numbers in the file.")


def refusals(config: Config, source: Source) -> list[str]:
    """List what `dtype` cannot hold: any model can be written."""
    from alm.export.weights import too_large

    return too_large(source.weights, config.dtype)


def write(config: Config, source: Source, folder: Path) -> None:
    """Write `model.safetensors`, the model's `config.yaml` and `tokenizer.json`."""
    from alm.export.weights import narrowed
    from alm.files.tensors import write_tensors

    write_tensors(folder / WEIGHTS_NAME, narrowed(source.weights, config.dtype))
    write_text(folder / CONFIG_NAME, write_yaml({"model": source.model.model_dump(mode="json")}))
    write_bytes(folder / TOKENIZER_NAME, source.tokenizer_path.read_bytes())


def compare(config: Config, source: Source, folder: Path) -> list[Comparison]:
    """Read the file back with the library and compare the tensors."""
    import safetensors

    from alm.export.weights import DTYPES, StoredWeights

    stored, expected = StoredWeights.of(folder), source.weights
    equal = {
        name
        for name, found in stored.tensors()
        if name in expected and expected[name].to(DTYPES[config.dtype]).float().equal(found)
    }
    is_same = stored.dtype == config.dtype
    different = len(expected.keys() | stored.shapes.keys()) - (len(equal) if is_same else 0)
    return [
        Comparison(
            what="tensors that differ",
            tool=f"safetensors {safetensors.__version__}",
            difference=different,
            bar=0,
            detail=f"{len(expected)} tensors",
        )
    ]


def usage(config: Config, source: Source, name: str) -> str:
    """Explain how to read the file, in Markdown."""
    path = shown.as_json(f"{name}/{WEIGHTS_NAME}")
    fetched = f"hf_hub_download({shown.as_json(name)}, {shown.as_json(WEIGHTS_NAME)})" if config.repo else path
    needed = "from huggingface_hub import hf_hub_download\n" if config.repo else ""
    program = f"""{needed}from safetensors.torch import load_file

weights = load_file({fetched})"""
    return f"""{fenced("python", program)}

Names and shapes are those of Hugging Face's Llama. `{CONFIG_NAME}` holds the shape of the model as `alm` has it, and
`{TOKENIZER_NAME}` is read by the library `tokenizers`."""
