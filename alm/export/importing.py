"""The stage `alm import`: from a Hugging Face folder or a GGUF file to a checkpoint of step 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, get_args

from torch import Tensor

from alm import artifacts, files
from alm.artifacts import Comparison, FileRecord, HubCommit, ImportMetadata
from alm.checkpoint.format import LAST_NAME, Checkpoint
from alm.checkpoint.format import name as checkpoint_name
from alm.checkpoint.load import load_checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.config.yaml_files import write_yaml
from alm.errors import ArtifactError, ConfigError, InputError, absent_hint, quoted, shell
from alm.events import Listener, Noted, Warned, ignore
from alm.export import chat_template, from_gguf, from_gguf_tokenizer, from_hf_config, staging
from alm.export.chat_template import ChatTemplate
from alm.export.from_gguf_header import read_header
from alm.export.hf_config import vocabulary_refusals
from alm.export.source import Source
from alm.export.weights import StoredWeights, bounds
from alm.files.parse import read_json
from alm.model.config import ModelConfig
from alm.model.weights import differences, shapes_of
from alm.tokenizers import ends
from alm.tokenizers.chat_format import Form
from alm.tokenizers.file import Tokenizer
from alm.training.run import run_folder

METADATA_NAME = "import.json"
CONFIG_NAME, TOKENIZER_NAME = "config.json", "tokenizer.json"
TIED_HEAD = "lm_head.weight"
_JSON_BYTES = 16 << 20  # tokenizer_config.json may list every added token
_MANY_FAULTS = 10
_VOUCHING = (Path(checkpoint_name(0)).with_suffix(".json").name, LAST_NAME)  # they promise a complete checkpoint
_HUB = "huggingface.co"  # part of an address
_ROTARY = ".rotary_emb.inv_freq"  # stored by old files, although the configuration determines it


class Weights(Protocol):
    """The tensors of a model of another tool: described before they are read, and read one at a time."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold them."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Their shapes by our names."""

    @property
    def dtype(self) -> str:
        """The types of their numbers, in words."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each with its name, in any type of numbers."""


@dataclass(frozen=True)
class Foreign:
    """A checked model of another tool that alm can load: a folder or a file. The weights are read later."""

    kind: str
    path: Path
    architecture: str
    model: ModelConfig
    tokenizer: Tokenizer
    stored: Weights
    inputs: tuple[Path, ...]
    ends: tuple[int, ...] = ()  # ids that end a text according to it; empty if it names none
    not_taken: tuple[str, ...] = ()
    template: ChatTemplate | None = None
    repository: HubCommit | None = None


def check_settings(path: Path) -> tuple[str, ModelConfig]:
    """Check the folder at `path` without its weights, which may not be there yet; return its architecture and model."""
    values, model, tokenizer = _settings(path)
    if faults := vocabulary_refusals(model, tokenizer):
        raise _refused(path, faults, _look(path))
    return values["model_type"], model


def _settings(path: Path) -> tuple[dict[str, Any], ModelConfig, Tokenizer]:  # Any: JSON
    if not path.is_dir():
        raise InputError(f"`{path}` is not a folder", hint=_folder_hint(path))
    values = _json(path / CONFIG_NAME)
    model, faults = from_hf_config.read(values)
    if model is None:
        raise _refused(path, faults, _look(path), family=values.get("model_type"))
    given = from_hf_config.read_sidecars(path, values, _json).ends
    return values, model, _tokenizer(path / TOKENIZER_NAME, given, values["model_type"])


def _look(path: Path) -> str:
    return shell("cat", path / CONFIG_NAME)


def open_folder(path: Path) -> Foreign:
    """Read and check the folder at `path`; `InputError` with every reason why its model cannot be imported."""
    values, model, tokenizer = _settings(path)
    stored = StoredWeights.of(path)
    _check(path, model, tokenizer, stored, _look(path))
    sidecars = from_hf_config.read_sidecars(path, values, _json)
    beside = [each for name in from_hf_config.SIDECARS if (each := path / name).is_file()]
    inputs = (path / CONFIG_NAME, path / TOKENIZER_NAME, *beside, *stored.files)
    found = Foreign("huggingface", path, values["model_type"], model, tokenizer, stored, inputs)
    template = chat_template.in_folder(path, _json)
    return replace(found, ends=_known(sidecars.ends, tokenizer), not_taken=sidecars.not_taken, template=template)


def open_gguf(path: Path) -> Foreign:
    """Read and check the GGUF file at `path`; `InputError` with every reason why its model cannot be imported."""
    header = read_header(path)
    model, faults = from_gguf.read(header)
    architecture = header.settings.get("general.architecture")
    if model is None:
        raise _refused(path, faults, family=architecture)
    tokenizer = _followed(lambda: from_gguf_tokenizer.read(header), architecture)
    stored = from_gguf.GgufWeights(header, model)
    _check(path, model, tokenizer, stored)
    assert isinstance(architecture, str)
    found = Foreign("gguf", path, architecture, model, tokenizer, stored, (path,))
    template = from_gguf.template(header, tokenizer)
    known = _known(from_gguf.ends(header), tokenizer)
    return replace(found, ends=known, not_taken=from_gguf.not_taken(header), template=template)


def _known(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return those of `ids` that the tokenizer has: a file may name others, which no text ends with."""
    return tuple(dict.fromkeys(id_ for id_ in ids if 0 <= id_ < tokenizer.vocab_size))


KINDS: dict[str, Callable[[Path], Foreign]] = {"huggingface": open_folder, "gguf": open_gguf}
"""How each kind of model is opened, by the name that `--from` takes."""


def open_model(path: Path, kind: str) -> Foreign:
    """Read and check the model at `path`; `InputError` with every reason why it cannot be imported."""
    if kind not in KINDS:
        raise ConfigError(f"cannot import from `{kind}` (there is: {', '.join(KINDS)})")
    return KINDS[kind](path)


def _check(path: Path, model: ModelConfig, tokenizer: Tokenizer, stored: Weights, look: str | None = None) -> None:
    faults = [*vocabulary_refusals(model, tokenizer), *_name_faults(model, stored)]
    if faults:
        raise _refused(path, faults, look)


def import_model(
    path: Path,
    *,
    kind: str = "huggingface",
    out: Path,
    force: bool = False,
    compare: bool = True,
    redo: str = "alm import",
    repository: HubCommit | None = None,
    on_event: Listener = ignore,
) -> ImportMetadata:
    """Make a checkpoint of step 0 in the folder `out` from the model at `path`, one of `KINDS`.

    `repository` says where on the hub it is from.

    Raises `InputError` if alm does not have such a model, and `ArtifactError` if the other tool, when installed,
    computes other results, or if `out` was made with other settings or inputs.
    """
    found = replace(open_model(path, kind), repository=repository)
    return staging.make_once(
        out,
        name=METADATA_NAME,
        label="import",
        what=f"an import to `{out}`",
        made_before=lambda: _usable(made_before(found, out=out, force=force, redo=redo), compare=compare),
        make=lambda stage: _made(found, out, stage, compare=compare, redo=redo, on_event=on_event),
        force=force,
        vouching=_VOUCHING,
        on_event=on_event,
    )


def _usable(found: ImportMetadata | None, *, compare: bool) -> ImportMetadata | None:
    """Return `found` if it was compared, or if comparing is not requested."""
    return found if found is not None and (found.comparisons is not None or not compare) else None


def _made(found: Foreign, out: Path, stage: Path, *, compare: bool, redo: str, on_event: Listener) -> ImportMetadata:
    """Write the checkpoint into `stage`, compare it with the model in the other tool, and describe it."""
    _note_turns(found, on_event)
    _write(found, stage)
    comparisons = _compared(found, stage, on_event) if compare else None
    return ImportMetadata(
        command=redo,
        config=_config(found),
        inputs=tuple(_inputs(found, out)),
        kind=found.kind,
        architecture=found.architecture,
        parameters=sum(map(math.prod, shapes_of(found.model).values())),
        dtype=found.stored.dtype,
        tokenizer_sha256=found.tokenizer.sha256,
        not_taken=found.not_taken,
        chat=found.template.chat.model_dump(mode="json") if found.template and found.template.chat else None,
        repository=found.repository,
        comparisons=comparisons,
        files=staging.records(stage),
    )


def _config(found: Foreign) -> dict[str, Any]:  # Any: JSON
    return {"kind": found.kind}


def _inputs(found: Foreign, out: Path) -> list[FileRecord]:
    """Hash the files that an import reads; paths are as seen from `out`."""
    return [artifacts.record(file, relative_to=out) for file in found.inputs]


def made_before(found: Foreign, *, out: Path, force: bool, redo: str) -> ImportMetadata | None:
    """Return the metadata in `out` if it was made from these files; `ArtifactError` for a run or other inputs."""
    refuse_run(out)
    name = out / METADATA_NAME
    inputs = [] if force or not name.is_file() else _inputs(found, out)
    return artifacts.current(name, ImportMetadata, config=_config(found), inputs=inputs, force=force, redo=redo)


def refuse_run(out: Path) -> None:
    """Raise `ArtifactError` if the folder `out` holds a run."""
    if run_folder.exists(out):
        raise ArtifactError(f"`{out}` holds a run", hint=f"add `--out {quoted(run_folder.free_name(out))}`")


def _refused(path: Path, faults: list[str], look: str | None = None, family: object = None) -> InputError:
    """Make the error. A model of a `family` that alm does not have as it is gets the nearest one as its hint."""
    if len(faults) > _MANY_FAULTS:
        faults = [*faults[:_MANY_FAULTS], f"and {len(faults) - _MANY_FAULTS} more"]
    message = "\n  ".join([f"`{path}` cannot be imported:", *faults])
    look = look or shell("python", "-m", "gguf.scripts.gguf_dump", "--no-tensors", path)
    if family is None:
        return InputError(message, hint=f"run `{look}`")
    command = shell("alm", "import", from_hf_config.nearest(family))
    return InputError(message, hint=f"run `{command}`, which alm has; `{look}` shows the settings")


def _folder_hint(path: Path) -> str:
    if path.suffix == ".gguf" and path.is_file():
        return f"run `{shell('alm', 'import', '--from', 'gguf', path)}`"
    if path.exists():
        return f"name the folder that holds `{CONFIG_NAME}`"
    parts = path.parts[path.parts.index(_HUB) + 1 :][:2] if _HUB in path.parts else path.parts
    name = "/".join(parts) if len(parts) <= 2 and path.parts[0] not in ("/", "..") else "namespace/name"
    command = shell("alm", "import", f"{name}@main")
    return f"name the folder that holds `{CONFIG_NAME}`. The hub was not asked: for its models, run `{command}`"


def _tokenizer(path: Path, ends: Sequence[int], family: object) -> Tokenizer:
    """Load the tokenizer; its errors get a hint about imports, as training one would not help."""
    if not path.is_file():
        raise InputError(f"no tokenizer found at `{path}`", hint=absent_hint(path))
    return _followed(lambda: Tokenizer.load(path, end_of_text=next(iter(ends), None)), family)


def _followed(load: Callable[[], Tokenizer], family: object) -> Tokenizer:
    try:
        return load()
    except InputError as error:
        command = shell("alm", "import", from_hf_config.nearest(family))
        hint = f"run `{command}`, whose tokenizer alm follows; `alm import --help` lists the kinds"
        raise InputError(error.message, hint=hint) from error


def _json(path: Path) -> dict[str, Any]:  # Any: JSON
    values = read_json(path, most=_JSON_BYTES, allow_nan=True)
    if not isinstance(values, dict):
        hint = f"run `{shell('head', '-c', '200', path)}` to see what it is"
        raise InputError(f"`{path}` is not a JSON object", hint=hint)
    return values


def _note_turns(found: Foreign, on_event: Listener) -> None:
    """Say which turn format the chat template has; warn if it is of no known form."""
    if found.template is None:
        return
    if found.template.chat is not None:
        on_event(Noted(f"its conversations have the turns of {found.template.chat.form}"))
        return
    known = ", ".join(get_args(Form))
    on_event(
        Warned(
            f"the chat template of `{found.path}` is of no form that alm knows ({known})",
            "exports keep its text; alm itself runs no template",
        )
    )


def _name_faults(model: ModelConfig, stored: Weights) -> list[str]:
    found = {name: shape for name, shape in stored.shapes.items() if not name.endswith(_ROTARY)}
    return differences(model, found, spare={TIED_HEAD} if model.tie_embeddings else ())


def _weights(foreign: Foreign) -> dict[str, Tensor]:
    """Read all weights in fp32; `InputError` for one that is not finite, or a tied head that is another table."""
    found: dict[str, Tensor] = {}
    for name, tensor in foreign.stored.tensors():
        if name.endswith(_ROTARY):
            continue
        found[name] = tensor.float()
        if not all(map(math.isfinite, bounds(found[name]))):
            raise _refused(foreign.path, [f"`{name}` has values that are not finite"])
    if foreign.model.tie_embeddings:
        head = found.pop(TIED_HEAD, None)
        if head is not None and not head.equal(found["model.embed_tokens.weight"]):
            raise _refused(foreign.path, [f"its embeddings are tied, but `{TIED_HEAD}` is another table"])
    return {name: found[name] for name in shapes_of(foreign.model)}


def _write(found: Foreign, stage: Path) -> None:
    """Write the checkpoint and what belongs to it; the weights are in memory only here."""
    weights = _weights(found)
    config = {"model": found.model.model_dump(mode="json")}
    files.write_text(stage / run_folder.CONFIG_NAME, write_yaml(config))
    found.tokenizer.save(stage / run_folder.TOKENIZER_NAME)
    if found.template is not None:
        files.write_text(stage / run_folder.CHAT_TEMPLATE_NAME, found.template.text)
    if found.ends:
        ends.write(stage, found.ends)
    checkpoint = Checkpoint(
        step=0,
        samples_seen=0,
        model=weights,
        optimizer={},
        rng=[],
        config=config,
        environment={},
        tokenizer_sha256=found.tokenizer.sha256,
        data_sha256="",
    )
    save_checkpoint(checkpoint, stage)


def _compared(found: Foreign, stage: Path, on_event: Listener) -> tuple[Comparison, ...] | None:
    """Compare the checkpoint in `stage` with the same files in the tool that they are for."""
    source = Source(
        path=stage / LAST_NAME,
        step=0,
        sha256="",
        model=found.model,
        load=lambda: load_checkpoint(stage / LAST_NAME).model,
        tokenizer=found.tokenizer,
        tokenizer_path=stage / run_folder.TOKENIZER_NAME,
        run=None,
    )
    return staging.compared(
        lambda: _COMPARE[found.kind](source, found),
        hint="please report this with the model's settings; `--no-compare` imports it anyway",
        on_event=on_event,
    )


def _in_transformers(source: Source, found: Foreign) -> list[Comparison]:
    from alm.export.targets import _transformers

    # alm never chooses ids of the model for which the tokenizer has no text.
    unsaid = range(found.tokenizer.vocab_size, found.model.known_vocab_size)
    return _transformers.compare(source, found.path, dtype="fp32", unsaid=unsaid)


def _in_llama_cpp(source: Source, found: Foreign) -> list[Comparison]:
    from alm.export.targets import _gguf_compare

    return _gguf_compare.of_import(source, found.path, found.stored.dtype)


_COMPARE = {"huggingface": _in_transformers, "gguf": _in_llama_cpp}
