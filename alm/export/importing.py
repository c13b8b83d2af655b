"""The stage `alm import`: from a Hugging Face folder to a checkpoint of step 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from alm import artifacts, files
from alm.artifacts import Comparison, FileRecord, ImportMetadata
from alm.checkpoint.format import LAST_NAME, Checkpoint
from alm.checkpoint.format import name as checkpoint_name
from alm.checkpoint.save import save_checkpoint
from alm.config.yaml_files import write_yaml
from alm.errors import ArtifactError, InputError, absent_hint, quoted, shell
from alm.events import Listener, Warned, ignore
from alm.export import from_hf_config, staging
from alm.export.hf_config import vocabulary_refusals
from alm.export.source import Source
from alm.export.weights import StoredWeights
from alm.files.parse import read_json
from alm.model.config import ModelConfig
from alm.model.weights import differences, shapes_of
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import END_OF_TEXT
from alm.training.run import run_folder

METADATA_NAME = "import.json"
CONFIG_NAME, TOKENIZER_NAME = "config.json", "tokenizer.json"
TIED_HEAD = "lm_head.weight"
_JSON_BYTES = 16 << 20  # tokenizer_config.json may list every added token
_MANY_FAULTS = 10
_CONFIG = {"kind": "huggingface"}
_VOUCHING = (Path(checkpoint_name(0)).with_suffix(".json").name, LAST_NAME)  # they promise a complete checkpoint
_ROTARY = ".rotary_emb.inv_freq"  # stored by old files, although the configuration determines it


@dataclass(frozen=True)
class Folder:
    """A checked Hugging Face folder whose model alm can load. The weights are read later."""

    path: Path
    architecture: str
    model: ModelConfig
    tokenizer: Tokenizer
    stored: StoredWeights
    ends: tuple[int, ...]  # ids that end a text according to the folder; empty if it names none
    not_taken: tuple[str, ...]


def open_folder(path: Path) -> Folder:
    """Read and check the folder at `path`; `InputError` with every reason why its model cannot be imported."""
    if not path.is_dir():
        raise InputError(f"`{path}` is not a folder", hint=_folder_hint(path))
    values = _json(path / CONFIG_NAME)
    model, faults = from_hf_config.read(values)
    if model is None:
        raise _refused(path, faults)
    tokenizer = _tokenizer(path / TOKENIZER_NAME)
    stored = StoredWeights.of(path)
    faults = [*vocabulary_refusals(model, tokenizer), *_name_faults(model, stored)]
    if faults:
        raise _refused(path, faults)
    sidecars = from_hf_config.read_sidecars(path, values, _json)
    return Folder(path, values["model_type"], model, tokenizer, stored, sidecars.ends, sidecars.not_taken)


def import_model(
    path: Path,
    *,
    out: Path,
    force: bool = False,
    compare: bool = True,
    redo: str = "alm import",
    on_event: Listener = ignore,
) -> ImportMetadata:
    """Make a checkpoint of step 0 in the folder `out` from the Hugging Face folder at `path`.

    Raises `InputError` if alm does not have such a model, and `ArtifactError` if `transformers`, when installed,
    computes other results, or if `out` was made with other settings or inputs.
    """
    folder = open_folder(path)
    inputs = inputs_of(folder, out)
    return staging.make_once(
        out,
        name=METADATA_NAME,
        label="import",
        what=f"an import to `{out}`",
        made_before=lambda: _usable(made_before(inputs, out=out, force=force, redo=redo), compare=compare),
        make=lambda stage: _made(folder, inputs, stage, compare=compare, redo=redo, on_event=on_event),
        force=force,
        vouching=_VOUCHING,
        on_event=on_event,
    )


def _usable(found: ImportMetadata | None, *, compare: bool) -> ImportMetadata | None:
    """Return `found` if it was compared, or if comparing is not requested."""
    return found if found is not None and (found.comparisons is not None or not compare) else None


def _made(
    folder: Folder, inputs: list[FileRecord], stage: Path, *, compare: bool, redo: str, on_event: Listener
) -> ImportMetadata:
    """Write the checkpoint into `stage`, compare it with the folder in `transformers`, and describe it."""
    weights = _weights(folder)
    _warn_of_ends(folder, on_event)
    _write(folder, weights, stage)
    comparisons = _compared(folder, weights, stage, on_event) if compare else None
    return ImportMetadata(
        command=redo,
        config=dict(_CONFIG),
        inputs=tuple(inputs),
        kind="huggingface",
        architecture=folder.architecture,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        dtype=folder.stored.dtype,
        tokenizer_sha256=folder.tokenizer.sha256,
        not_taken=folder.not_taken,
        comparisons=comparisons,
        files=staging.records(stage),
    )


def inputs_of(folder: Folder, out: Path) -> list[FileRecord]:
    """Hash the files that an import reads; paths are as seen from `out`."""
    return [artifacts.record(file, relative_to=out) for file in _files(folder)]


def made_before(inputs: list[FileRecord], *, out: Path, force: bool, redo: str) -> ImportMetadata | None:
    """Return the metadata in `out` if it was made from these files; `ArtifactError` for a run or other inputs."""
    if run_folder.exists(out):
        raise ArtifactError(f"`{out}` holds a run", hint=f"add `--out {quoted(run_folder.free_name(out))}`")
    return artifacts.current(
        out / METADATA_NAME, ImportMetadata, config=dict(_CONFIG), inputs=inputs, force=force, redo=redo
    )


def _refused(path: Path, faults: list[str]) -> InputError:
    if len(faults) > _MANY_FAULTS:
        faults = [*faults[:_MANY_FAULTS], f"and {len(faults) - _MANY_FAULTS} more"]
    message = "\n  ".join([f"`{path}` cannot be imported:", *faults])
    return InputError(message, hint=f"run `{shell('cat', path / CONFIG_NAME)}`")


def _folder_hint(path: Path) -> str:
    if path.exists() or path.is_absolute() or len(path.parts) != 2:
        return f"name the folder that holds `{CONFIG_NAME}`"
    command = shell("hf", "download", path.as_posix(), "--local-dir", path.name)
    return f"for a model of the hub, run `{command}` and import `{path.name}`"


def _tokenizer(path: Path) -> Tokenizer:
    """Load the tokenizer; its errors get a hint about imports, as training one would not help."""
    if not path.is_file():
        raise InputError(f"no tokenizer found at `{path}`", hint=absent_hint(path))
    try:
        return Tokenizer.load(path)
    except InputError as error:
        hint = "import a model with a tokenizer that alm supports: `alm import --help` says which"
        raise InputError(error.message, hint=hint) from error


def _json(path: Path) -> dict[str, Any]:  # Any: JSON
    values = read_json(path, most=_JSON_BYTES, allow_nan=True)
    if not isinstance(values, dict):
        hint = f"run `{shell('head', '-c', '200', path)}` to see what it is"
        raise InputError(f"`{path}` is not a JSON object", hint=hint)
    return values


def _files(folder: Folder) -> list[Path]:
    sidecars = [path for name in from_hf_config.SIDECARS if (path := folder.path / name).is_file()]
    return [folder.path / CONFIG_NAME, folder.path / TOKENIZER_NAME, *sidecars, *folder.stored.files]


def _warn_of_ends(folder: Folder, on_event: Listener) -> None:
    """Warn if this model ends its texts with another id than alm does."""
    end = folder.tokenizer.end_of_text_id
    if folder.ends and end not in folder.ends:
        listed = ", ".join(map(str, folder.ends[:_MANY_FAULTS]))
        on_event(
            Warned(
                f"`{folder.path}` ends texts with id {listed}, but alm with {end} (`{END_OF_TEXT}`)",
                "give `alm sample` a `--max-tokens`: its texts may not end until it is trained further",
            )
        )


def _name_faults(model: ModelConfig, stored: StoredWeights) -> list[str]:
    found = {name: shape for name, shape in stored.shapes.items() if not name.endswith(_ROTARY)}
    return differences(model, found, spare={TIED_HEAD} if model.tie_embeddings else ())


def _weights(folder: Folder) -> dict[str, Tensor]:
    """Read all weights in fp32; `InputError` for one that is not finite, or a tied head that is another table."""
    found = {name: tensor.float() for name, tensor in folder.stored.tensors() if not name.endswith(_ROTARY)}
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        raise _refused(folder.path, [f"`{broken[0]}` has values that are not finite"])
    if folder.model.tie_embeddings:
        head = found.pop(TIED_HEAD, None)
        if head is not None and not head.equal(found["model.embed_tokens.weight"]):
            raise _refused(folder.path, [f"its embeddings are tied, but `{TIED_HEAD}` is another table"])
    return {name: found[name] for name in shapes_of(folder.model)}


def _write(folder: Folder, weights: dict[str, Tensor], stage: Path) -> None:
    config = {"model": folder.model.model_dump(mode="json")}
    files.write_text(stage / run_folder.CONFIG_NAME, write_yaml(config))
    files.write_bytes(stage / run_folder.TOKENIZER_NAME, (folder.path / TOKENIZER_NAME).read_bytes())
    checkpoint = Checkpoint(
        step=0,
        samples_seen=0,
        model=weights,
        optimizer={},
        rng=[],
        config=config,
        environment={},
        tokenizer_sha256=folder.tokenizer.sha256,
        data_sha256="",
    )
    save_checkpoint(checkpoint, stage)


def _compared(
    folder: Folder, weights: dict[str, Tensor], stage: Path, on_event: Listener
) -> tuple[Comparison, ...] | None:
    """Compare the imported model with the folder in `transformers`."""
    from alm.export.targets import _transformers

    source = Source(
        path=stage / LAST_NAME,
        step=0,
        sha256="",
        model=folder.model,
        weights=weights,
        tokenizer=folder.tokenizer,
        tokenizer_path=stage / run_folder.TOKENIZER_NAME,
        run=None,
    )
    # alm never chooses ids of the model for which the tokenizer has no text.
    unsaid = range(folder.tokenizer.vocab_size, folder.model.known_vocab_size)
    return staging.compared(
        lambda: _transformers.compare(source, folder.path, dtype="fp32", unsaid=unsaid),
        hint="please report this with the folder's config.json",
        on_event=on_event,
    )
