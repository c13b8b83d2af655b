"""Kind `gguf`: one file for llama.cpp and programs built on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from alm import shown
from alm.artifacts import Comparison
from alm.export import chat_template, hf_config, optional_tools
from alm.export.config import TargetConfig
from alm.export.markdown import fenced
from alm.export.source import Source
from alm.export.targets import _gguf_types
from alm.export.targets._gguf_types import Dtype
from alm.files import write_text

if TYPE_CHECKING:
    import gguf

TOOL = "xllamacpp"


class Config(TargetConfig):
    """Settings of the kind: the type of the written numbers."""

    kind: Literal["gguf"] = Field("gguf", description="One file for llama.cpp.")
    dtype: Dtype | None = Field(
        None,
        description="Type of the numbers in matrices: q8_0, q5_1, q4_0 and q4_k have as many bits for each, and scales "
        "for groups; absent: the type of a quantized model, else f32.",
    )


def refusals(config: Config, source: Source) -> list[str]:
    """List what llama.cpp's Llama, its tokenizers, or `dtype` cannot hold."""
    from alm.export.targets import _gguf_model, _gguf_tokenizer
    from alm.export.weights import too_large

    found = [*hf_config.refusals(source.model), *hf_config.vocabulary_refusals(source.model, source.tokenizer)]
    found += [*_gguf_model.refusals(source.model), *_gguf_tokenizer.refusals(source.tokenizer)]
    # The scales of blocks are f16 too, and so are rows that do not divide into blocks.
    return found if dtype_of(config, source) == "f32" else found + too_large(source.weights, "fp16")


def dtype_of(config: Config, source: Source) -> Dtype:
    """Return the type of the file: without one in `config`, the type that holds the model as it is."""
    return config.dtype or _gguf_types.dtype_of(source)


def file_name(config: Config, source: Source) -> str:
    """Return a file name that says what it holds: such files leave their folders."""
    return f"{source.name}-{dtype_of(config, source)}.gguf"


def write(config: Config, source: Source, folder: Path) -> None:
    """Write the file, and a Modelfile for Ollama if the model has a turn format."""
    from alm.export.targets import _gguf_model as model
    from alm.export.targets import _ollama
    from alm.export.targets._gguf_file import add_origin, writing
    from alm.export.targets._gguf_tokenizer import add_tokenizer

    name, dtype = file_name(config, source), dtype_of(config, source)
    with writing(folder / name, model.architecture(source.model)) as writer:
        _add_type(writer, dtype)
        add_origin(writer, config, source)
        model.add_shape(writer, source.model)
        kept = chat_template.read_beside(source.path.parent)
        size = source.model.known_vocab_size
        add_tokenizer(writer, source.tokenizer, ends=source.ends, vocab_size=size, chat_template=kept)
        for each, array, kind in _gguf_types.tensors(source, dtype):
            writer.add_tensor(each, array, raw_dtype=kind)
    described = _ollama.modelfile(name, source)
    if described is not None:
        write_text(folder / _ollama.NAME, described)


def _add_type(writer: gguf.GGUFWriter, dtype: Dtype) -> None:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType[_gguf_types.FILE_TYPES[dtype]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def compare(config: Config, source: Source, folder: Path) -> list[Comparison]:
    """Compare the file in llama.cpp; `UnusableToolError` if its package is missing or cannot be loaded."""
    optional_tools.load(TOOL)
    from alm.export.targets._gguf_compare import comparisons

    return comparisons(source, folder / file_name(config, source), dtype_of(config, source))


def usage(config: Config, source: Source, name: str) -> str:
    """Explain how to run the file, in Markdown."""
    from alm.export.targets import _ollama

    file = file_name(config, source)
    model = f"-hf {shown.word(name)}" if config.repo else f"-m {shown.word(f'{name}/{file}')}"
    commands = [f'llama-completion {model} -no-cnv --temp 0.8 --top-k 40 -p "Once upon a time"']
    if _ollama.modelfile(file, source) is not None:
        modelfile = shown.word(f"{name}/{_ollama.NAME}")
        commands = [f"llama-cli {model}", f"ollama create my-model -f {modelfile}", "ollama run my-model", *commands]
    return f"""{fenced("console", chr(10).join(commands))}

Programs that are built on llama.cpp take the file as it is. It holds the tokenizer, which gives the ids of `alm`. No
token is put before a prompt; the prompt `<|endoftext|>` begins a new text."""
