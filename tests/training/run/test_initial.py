"""`--init`: the weights of a checkpoint, everything else new, and resumed as exactly as any run."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import VOCAB_SIZE, run_config, write_packed

from alm.artifacts import FileRecord
from alm.checkpoint.format import LAST_NAME, Checkpoint
from alm.checkpoint.load import load_checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.cli.main import main
from alm.errors import AlmError, ArtifactError, ConfigError, StoppedError
from alm.events import Event, Judged, Stepped
from alm.files import sha256
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.packing.shards import open_packed
from alm.tokenizers.file import Tokenizer
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.pretrain import pretrain
from alm.training.run import run_folder


def save(folder: Path, model: ModelConfig, weights: dict[str, torch.Tensor], tokenizer: Path) -> Path:
    """`weights` as a checkpoint of step 0 that is no run's, as `alm import` leaves it."""
    folder.mkdir(parents=True)
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    checkpoint = Checkpoint(
        step=0,
        samples_seen=0,
        model=weights,
        optimizer={},
        rng=[],
        config={"model": model.model_dump(mode="json")},
        environment={},
        tokenizer_sha256=Tokenizer.load(tokenizer).sha256,
        data_sha256="",
    )
    save_checkpoint(checkpoint, folder)
    return folder / LAST_NAME


@pytest.fixture
def start(data: Path, tmp_path: Path) -> Path:
    """The weights that `run_config()` begins with by itself, in a file."""
    config = run_config()
    model = Transformer(config.model.with_vocab_size(VOCAB_SIZE))
    initialize(model, seed=config.training.seed)
    return save(tmp_path / "start", model.config, dict(model.state_dict()), open_packed(data).tokenizer_path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / LAST_NAME).model


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(left[name].equal(value) for name, value in right.items())


def stop_after(step: int) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == step:
            signal.raise_signal(signal.SIGINT)

    return listen


@pytest.mark.slow
def test_the_weights_it_would_have_drawn_give_the_run_it_would_have_been(
    data: Path, uninterrupted: Path, start: Path, tmp_path: Path
) -> None:
    pretrain(run_config(), data=data, out=tmp_path / "run", init=start)
    assert same(tmp_path / "run", uninterrupted)
    assert metrics.without_clock(metrics.read(tmp_path / "run")) == metrics.without_clock(metrics.read(uninterrupted))


def test_it_goes_on_from_what_was_learned(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    init, out = uninterrupted / LAST_NAME, tmp_path / "run"
    pretrain(run_config(), data=data, out=out, init=init)
    first, again = (next(row["loss"] for row in metrics.read(run) if "loss" in row) for run in (uninterrupted, out))
    assert again < first - 0.2
    found = load_checkpoint(out / LAST_NAME)
    assert (found.step, found.samples_seen) == (12, 48)
    rates = [[row["lr"] for row in metrics.read(folder) if "lr" in row] for folder in (uninterrupted, out)]
    assert rates[0] == rates[1]  # the schedule begins anew


def test_the_lineage_is_in_the_run(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    init, out = uninterrupted / LAST_NAME, tmp_path / "run"
    pretrain(run_config(), data=data, out=out, init=init)
    recorded = run_folder.read_metadata(out).initial_weights
    assert recorded == FileRecord(
        path=recorded.path,
        bytes=init.stat().st_size,
        sha256=sha256(init),  # type: ignore[union-attr]
    )
    assert (out / recorded.path).resolve() == init.resolve()
    assert recorded in run_folder.read_metadata(out).inputs
    assert run_folder.read_metadata(uninterrupted).initial_weights is None


@pytest.mark.sampled(2)
@pytest.mark.parametrize("stop", [1, 4, 7])
@pytest.mark.parametrize("is_named_again", [True, False])
def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(
    data: Path, uninterrupted: Path, tmp_path: Path, stop: int, is_named_again: bool
) -> None:
    init, whole, cut = uninterrupted / LAST_NAME, tmp_path / "whole", tmp_path / "cut"
    pretrain(run_config(), data=data, out=whole, init=init)
    with pytest.raises(StoppedError, match=f"interrupted at step {stop}"):
        pretrain(run_config(), data=data, out=cut, init=init, on_event=stop_after(stop))
    pretrain(run_config(), data=data, out=cut, init=init if is_named_again else None)
    assert same(cut, whole)


@pytest.mark.slow
def test_killed_before_its_first_checkpoint_it_begins_there_again(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "before")
    init, whole, cut = tmp_path / "before" / LAST_NAME, tmp_path / "whole", tmp_path / "cut"
    pretrain(run_config(), data=data, out=whole, init=init)
    shutil.copytree(whole, cut)
    for left in cut.glob("ckpt-*"):
        left.unlink()
    pretrain(run_config(), data=data, out=cut)
    assert same(cut, whole)
    for left in cut.glob("ckpt-*"):
        left.unlink()
    save_checkpoint(load_checkpoint(whole / LAST_NAME), init.parent)  # another one by the same name
    with pytest.raises(ArtifactError, match="is not the checkpoint that the run started from"):
        pretrain(run_config(), data=data, out=cut)
    init.unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        pretrain(run_config(), data=data, out=cut)


def test_once_it_has_a_checkpoint_it_needs_no_other(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path / "before")
    with pytest.raises(StoppedError):
        pretrain(
            run_config(), data=data, out=tmp_path / "run", init=tmp_path / "before" / LAST_NAME, on_event=stop_after(5)
        )
    shutil.rmtree(tmp_path / "before")
    pretrain(run_config(), data=data, out=tmp_path / "run")


def test_it_is_not_held_against_runs_that_began_with_nothing(
    data: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alm.training.monitoring import reference

    asked: list[object] = []
    monkeypatch.setattr(reference, "matching", lambda *arguments: asked.append(arguments))
    events: list[Event] = []
    pretrain(run_config(), data=data, out=tmp_path / "run", init=uninterrupted / LAST_NAME, on_event=events.append)
    assert asked == []
    assert any(isinstance(event, Judged) for event in events)


# ---- refusals --------------------------------------------------------------------------------------------------


def refusal(kind: type[AlmError], config: RunConfig, **options: Any) -> AlmError:
    with pytest.raises(kind) as caught:
        pretrain(config, **options)
    return caught.value


def test_data_of_another_tokenizer(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    other, _ = write_packed(tmp_path / "other", seed=5)
    error = refusal(ArtifactError, run_config(), data=other, out=tmp_path / "run", init=uninterrupted / LAST_NAME)
    assert "was trained with another tokenizer than the data" in error.message
    assert f"alm pack --tokenizer {uninterrupted / 'tokenizer.json'}" in str(error.hint)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model__d_model": 32}, "model.embed_tokens.weight` is [300, 16] there, and [300, 32]"),
        ({"model__n_layers": 2}, "model.layers.1.input_layernorm.weight` is nothing there, and [16]"),
        ({"model__qk_norm": True}, "model.layers.0.self_attn.k_norm.weight` is nothing there, and [8]"),
        ({"model__vocab_size": 301}, "model.embed_tokens.weight` is [300, 16] there, and [301, 16]"),
    ],
)
def test_weights_that_do_not_fit(
    data: Path, uninterrupted: Path, tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    config = run_config(**{"model__vocab_size": VOCAB_SIZE, **changes})
    error = refusal(ConfigError, config, data=data, out=tmp_path / "run", init=uninterrupted / LAST_NAME)
    assert name in error.message


def test_a_run_that_began_otherwise(data: Path, uninterrupted: Path, start: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(run_config(), data=data, out=out, init=start)
    error = refusal(ConfigError, run_config(), data=data, out=out, init=uninterrupted / LAST_NAME)
    assert f"`{out}` started from `../start/{LAST_NAME}`" in error.message
    shutil.copytree(uninterrupted, tmp_path / "plain")
    error = refusal(ConfigError, run_config(), data=data, out=tmp_path / "plain", init=start)
    assert "started with random weights" in error.message


def test_a_damaged_checkpoint(data: Path, start: Path, tmp_path: Path) -> None:
    content = start.read_bytes()
    start.unlink()
    start.write_bytes(content[:-2] + b"xx")
    error = refusal(ArtifactError, run_config(), data=data, out=tmp_path / "run", init=start)
    assert "is damaged" in error.message


# ---- the command -----------------------------------------------------------------------------------------------


def ends(words: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert (ending.value.code or 0) == code


@pytest.mark.slow
def test_the_command_takes_the_model_from_the_checkpoint(
    data: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(uninterrupted, tmp_path / "runs/first")
    words = ["pretrain", "--init", f"runs/first/{LAST_NAME}", "--data", str(data), "--device", "cpu"]
    words += [
        "--set",
        "training.max_steps=3",
        "--set",
        "training.micro_batch_size=2",
        "--set",
        "training.precision=fp32",
    ]
    words += ["--set", "model.dropout=0.1", "--set", "samples.prompts=[]"]
    ends([*words, "--dry-run"])
    assert not Path("runs/first-pretrain").exists()
    ends([*words, "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = load_checkpoint(uninterrupted / LAST_NAME).config["model"]
    assert told["config"]["model"] == {**expected, "dropout": 0.1}
    assert (told["config"]["optim"]["kind"], told["config"]["optim"]["lr"]) == ("adamw", 1e-4)
    assert told["initial_weights"]["path"] == f"../first/{LAST_NAME}"
    ends(words)
    assert "is up to date" in capsys.readouterr().err
    ends(["info", "runs/first-pretrain"])
    assert "started from" in capsys.readouterr().out
    ends([*words, "--model", "1m"], code=2)
    assert "`--init` and `--model` cannot be combined" in capsys.readouterr().err
