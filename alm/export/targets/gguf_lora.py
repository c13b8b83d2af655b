"""Kind `gguf_lora`: the adapters of a run with `lora.rank`, apart from the weights, in a file for llama.cpp.

The file is what convert_lora_to_gguf.py of llama.cpp makes of the files of PEFT.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm import shown
from alm.artifacts import Comparison
from alm.export import optional_tools
from alm.export.config import TargetConfig
from alm.export.markdown import code, fenced
from alm.export.source import Source
from alm.export.targets import _adapters, gguf

if TYPE_CHECKING:
    from alm.export.targets._gguf_model import Numbers

TOOL = gguf.TOOL
_A, _B = ".lora_a", ".lora_b"


class Config(TargetConfig):
    """Settings of the kind: none."""

    kind: Literal["gguf_lora"] = Field(
        "gguf_lora", description="The adapters of a fine-tuned model for llama.cpp, without its weights."
    )


def refusals(config: Config, source: Source) -> list[str]:
    """List why there is nothing to write, or why the model itself cannot be a file for llama.cpp."""
    return [*_adapters.refusals(source), *gguf.refusals(gguf.Config(), source)]


def file_name(source: Source) -> str:
    """Return a file name that says what it holds: such files leave their folders."""
    return f"{source.name}-lora.gguf"


def write(config: Config, source: Source, folder: Path) -> None:
    """Write the adapters, with the factor that they are added with."""
    from gguf import GGUFType, Keys

    from alm.export.targets._gguf_file import add_origin, writing
    from alm.export.targets._gguf_model import architecture

    with writing(folder / file_name(source), architecture(source.model)) as writer:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, _adapters.settings(source).alpha)
        add_origin(writer, config, source)
        for name, values in tensors(source):
            writer.add_tensor(name, values)


def tensors(source: Source) -> Iterator[tuple[str, Numbers]]:
    """Yield the matrices A (rank, inputs) and B (outputs, rank) by their names in GGUF.

    The rows of B are those of the matrix that it is added to, in llama.cpp's order.
    """
    from alm.export.targets._gguf_model import gguf_name, in_their_order
    from alm.model.weights import A_NAME, B_NAME

    for name, tensor in _adapters.tensors(source).items():
        if name.endswith(A_NAME):
            yield gguf_name(name.removesuffix(A_NAME) + ".weight") + _A, tensor.float().numpy()
        else:
            weight = name.removesuffix(B_NAME) + ".weight"
            yield gguf_name(weight) + _B, in_their_order(weight, tensor.float().numpy(), source.model)


def compare(config: Config, source: Source, folder: Path) -> list[Comparison]:
    """Compare the weights without adapters, and the file beside them in llama.cpp, with the model.

    `UnusableToolError` if the package is missing or cannot be loaded.
    """
    optional_tools.load(TOOL)
    from alm.export.targets._gguf_compare import comparisons

    base, settings = _without_adapters(source), gguf.Config()
    with TemporaryDirectory(prefix=".base-", dir=folder, ignore_cleanup_errors=True) as away:
        gguf.write(settings, base, Path(away))
        path = Path(away) / gguf.file_name(settings, base)
        return comparisons(source, path, gguf.dtype_of(settings, base), adapter=folder / file_name(source))


def _without_adapters(source: Source) -> Source:
    """Return the model with its adapters taken off: up to rounding, the one that the run started from."""
    from alm.model.lora import merged

    adapters, scale = _adapters.tensors(source), _adapters.settings(source).scale
    return dataclasses.replace(source, load=lambda: merged({**source.load(), **adapters}, scale=-scale))


def usage(config: Config, source: Source, name: str) -> str:
    """Explain how to use the adapters, in Markdown."""
    file, base = file_name(source), _adapters.base_name(source)
    named = f", {code(base)}" if base else ""
    command = f"llama-cli -m BASE.gguf --lora {shown.word(f'{name}/{file}')}"
    return f"""{fenced("console", command)}

The adapters go with a GGUF file of the model that the run started from{named}, which `alm export --to gguf`
writes. In a Modelfile of Ollama whose `FROM` names that file, a line adds them: {code(f"ADAPTER ./{file}")}."""
