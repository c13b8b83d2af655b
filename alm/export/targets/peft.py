"""Kind `peft`: the adapters of a run with `lora.rank`, apart from the weights, in the files of PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from alm import shown
from alm.artifacts import Comparison
from alm.export.config import TargetConfig
from alm.export.markdown import fenced
from alm.export.source import Source
from alm.export.targets import _adapters
from alm.files import write_text

if TYPE_CHECKING:
    from torch import Tensor

    from alm.training.config import LoraConfig

TOOL = "peft"
WEIGHTS_NAME, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."


class Config(TargetConfig):
    """Settings of the kind: none."""

    kind: Literal["peft"] = Field("peft", description="The adapters of a fine-tuned model, without its weights.")


def refusals(config: Config, source: Source) -> list[str]:
    """List why there is nothing to write."""
    return _adapters.refusals(source)


def write(config: Config, source: Source, folder: Path) -> None:
    """Write the adapters, and the configuration that PEFT reads."""
    import json

    from alm.files.tensors import write_tensors

    named = {_PREFIX + name: tensor for name, tensor in _adapters.tensors(source).items()}
    write_tensors(folder / WEIGHTS_NAME, named)
    values = peft_values(_adapters.settings(source), base=_adapters.base_name(source))
    write_text(folder / CONFIG_NAME, json.dumps(values, indent=2) + "\n")


def peft_values(lora: LoraConfig, *, base: str) -> dict[str, Any]:  # Any: JSON
    """Return the contents of `adapter_config.json` for adapters of the model `base`."""
    return {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": list(lora.targets),
        "task_type": "CAUSAL_LM",
    }


def compare(config: Config, source: Source, folder: Path) -> list[Comparison]:
    """Read the file back and compare the tensors."""
    import safetensors

    from alm.export.weights import StoredWeights

    found, expected = dict(StoredWeights((folder / WEIGHTS_NAME,), {}, "fp32").tensors()), _adapters.tensors(source)
    names = {_PREFIX + name: tensor for name, tensor in expected.items()}
    different = [name for name in names.keys() | found.keys() if not _is_same(names.get(name), found.get(name))]
    return [
        Comparison(
            what="tensors that differ",
            tool=f"safetensors {safetensors.__version__}",
            difference=len(different),
            bar=0,
            detail=f"{len(expected)} tensors",
        )
    ]


def _is_same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.equal(other)


def usage(config: Config, source: Source, name: str) -> str:
    """Explain how to use the adapters, in Markdown."""
    program = f"""from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({shown.as_json(_adapters.base_name(source))})
model = PeftModel.from_pretrained(base, {shown.as_json(name)})"""
    return f"""{fenced("python", program)}

The adapters go with the weights of the model that the run started from, in the layout of Hugging Face."""
