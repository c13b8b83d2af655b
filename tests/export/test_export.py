"""The stage: what it promises, when it does nothing, what it never overwrites, and what the page says of the run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from alm import artifacts
from alm.artifacts import ExportMetadata
from alm.checkpoint.load import load_checkpoint
from alm.cli.main import main
from alm.errors import ArtifactError
from alm.events import Event, Noted, Warned
from alm.export import held_out
from alm.export.compare import HARD_TEXTS, prompts, scored_by
from alm.export.run import export
from alm.export.source import load_source
from alm.export.targets.safetensors import Config
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.tokenizers.file import Tokenizer

from .conftest import Make, main_ok

SHAPES: list[dict[str, Any]] = [{}, {"positions": "alibi", "smear": True}, {"tie_embeddings": False, "vocab_size": 333}]


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_tensors_are_the_checkpoints(checkpoint_of: Make, tmp_path: Path, shape: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(**shape)
    made = export(Config(), checkpoint=checkpoint, out=tmp_path / "out")
    expected, found = load_checkpoint(checkpoint).model, load_file(tmp_path / "out/model.safetensors")
    assert found.keys() == expected.keys()
    assert all(found[name].equal(value) for name, value in expected.items())
    values = yaml.safe_load((tmp_path / "out/config.yaml").read_text("utf-8"))
    assert ModelConfig.model_validate(values["model"]) == load_source(checkpoint).model
    assert (tmp_path / "out/tokenizer.json").read_bytes() == checkpoint.with_name("tokenizer.json").read_bytes()
    assert made.comparisons is not None
    assert [one.difference for one in made.comparisons] == [0]


def test_the_metadata_promises_every_file(checkpoint_of: Make, tmp_path: Path) -> None:
    made = export(Config(), checkpoint=checkpoint_of(), out=tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert sorted(file.path for file in made.files) == sorted(set(names) - {"export.json"})
    assert artifacts.damaged(tmp_path / "out", made.payload()) == []
    assert artifacts.read(tmp_path / "out/export.json", ExportMetadata, hint="") == made
    assert (made.step, made.name, made.to) == (7, "tiny", "safetensors")


def test_files_are_readable_like_any_other(checkpoint_of: Make, tmp_path: Path) -> None:
    export(Config(), checkpoint=checkpoint_of(), out=tmp_path / "out")
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1


def test_what_is_there_is_kept_refused_or_made_anew(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint, out, events = checkpoint_of(), tmp_path / "out", list[Event]()
    made = export(Config(), checkpoint=checkpoint, out=out)
    assert export(Config(), checkpoint=checkpoint, out=out, on_event=events.append) == made
    assert events == [Noted(f"`{out}` is up to date")]
    with pytest.raises(ArtifactError, match="dtype  fp32 -> bf16"):
        export(Config(dtype="bf16"), checkpoint=checkpoint, out=out)
    assert load_file(out / "model.safetensors")["model.norm.weight"].dtype == torch.float32
    export(Config(dtype="bf16"), checkpoint=checkpoint, out=out, force=True)
    assert load_file(out / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("force", [True, False])
def test_a_run_is_no_place_for_an_export(checkpoint_of: Make, force: bool) -> None:
    checkpoint = checkpoint_of()
    before = {path.name: path.read_bytes() for path in checkpoint.parent.iterdir()}
    with pytest.raises(ArtifactError, match="is the folder of a run"):
        export(Config(), checkpoint=checkpoint, out=checkpoint.parent, force=force)
    assert {path.name: path.read_bytes() for path in checkpoint.parent.iterdir()} == before


def test_a_title_is_no_path(checkpoint_of: Make, tmp_path: Path) -> None:
    out = tmp_path / 'my "out"'
    export(Config(title='My "Tales"'), checkpoint=checkpoint_of(), out=out)
    card = (out / "README.md").read_text("utf-8")
    assert '\n# My "Tales"\n' in card
    assert 'load_file("my \\"out\\"/model.safetensors")' in card


def test_a_file_of_somebody_else_is_never_replaced(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint, out = checkpoint_of(), tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(ArtifactError, match="README.md` exists, and it is not the file that `export.json` promises"):
        export(Config(), checkpoint=checkpoint, out=out)
    assert [path.name for path in out.iterdir()] == ["README.md"]
    assert (out / "README.md").read_text() == "mine"
    export(Config(), checkpoint=checkpoint, out=out, force=True)
    assert (out / "README.md").read_text("utf-8") != "mine"


def test_a_damaged_checkpoint_or_another_tokenizer_is_refused(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint = checkpoint_of()
    Tokenizer.from_merges([]).save(checkpoint.with_name("tokenizer.json"))
    with pytest.raises(ArtifactError, match="was trained with another tokenizer"):
        export(Config(), checkpoint=checkpoint, out=tmp_path / "out")
    data = checkpoint.read_bytes()
    checkpoint.unlink()  # a link: the numbered one stays whole
    checkpoint.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="is damaged"):
        export(Config(), checkpoint=checkpoint, out=tmp_path / "out")


def test_a_checkpoint_without_metadata_is_told(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint, events = checkpoint_of(), list[Event]()
    checkpoint.with_name("ckpt-step000007.json").unlink()
    made = export(Config(), checkpoint=checkpoint, out=tmp_path / "out", on_event=events.append)
    assert isinstance(events[0], Warned)
    assert made.inputs[0].sha256 == load_source(checkpoint).sha256


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from alm.model.transformer import Transformer

    from .conftest import TINY, random_weights, save

    config = ModelConfig.model_validate({**TINY, "vocab_size": tokenizer.vocab_size})
    weights = random_weights(Transformer(config))
    weights["model.norm.weight"][0] = torch.inf
    checkpoint = save(tmp_path / "run", config, weights, tokenizer)
    with pytest.raises(ArtifactError, match=r"model.norm.weight` has values that are not finite"):
        export(Config(), checkpoint=checkpoint, out=tmp_path / "out")


# ---- a run that was trained ------------------------------------------------------------------------------------


def page_of(run: Path, out: Path, **changes: Any) -> str:
    export(Config.model_validate(changes), checkpoint=run / "ckpt-last.pt", out=out)
    return (out / "README.md").read_text("utf-8")


def cells(page: str) -> dict[str, str]:
    """The tables of two columns."""
    return dict(re.findall(r"^\| ([^|\n]+) \| ([^|\n]+) \|$", page, re.MULTILINE))


def test_the_page_tells_what_the_run_tells(trained: Path, tmp_path: Path) -> None:
    page = page_of(trained, tmp_path / "out")
    run = json.loads((trained / "run.json").read_bytes())
    told = cells(page)
    assert told["steps"] == "60 of 60"
    assert told["tokens"] == f"{run['result']['training_tokens']:,}, 64 a step"
    assert told["parameters"] == f"{run['parameters']:,}"
    score = f"{run['result']['bits_per_byte']:.4f} ± {run['result']['bits_per_byte_margin']:.4f}"
    assert told["bits per byte of held-out text"] == score
    model = ModelConfig.model_validate(run["config"]["model"])
    flops = run["result"]["training_tokens"] * count(model).training_flops_per_token(16)
    assert told["arithmetic"] == f"{flops:.2e} floating-point operations"
    packed = json.loads((trained.parent.parent / "packed/metadata.json").read_bytes())["sources"]["s"]
    documents, size = (sum(packed[split][key] for split in packed) for key in ("documents", "bytes"))
    source = f"| s | files | not stated |  | {documents:,} | {size:,} | {packed['train']['tokens']:,} |"
    assert source in page
    assert [
        line.split(" | ")[0] for line in page.split("## Curve")[1].splitlines() if line[:3] in ("| 2", "| 4", "| 6")
    ]
    assert run["data_sha256"][:8] in page
    assert "license:" not in page


def test_a_checkpoint_in_the_middle_tells_of_its_own_steps(trained: Path, tmp_path: Path) -> None:
    checkpoint = sorted(trained.glob("ckpt-step*.pt"))[0]
    step = load_checkpoint(checkpoint).step
    assert step < 60
    export(Config(), checkpoint=checkpoint, out=tmp_path / "out")
    told = cells((tmp_path / "out/README.md").read_text("utf-8"))
    assert told["steps"] == f"{step} of 60"
    assert told["tokens"].startswith(f"{step * 64:,},")
    assert told["bits per byte of held-out text"].endswith("at step 40")


def test_held_out_text_is_scored_as_validation_scored_it(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_source(trained / "ckpt-last.pt")
    text = held_out.held_out(source)
    assert text is not None
    expected = json.loads((trained / "run.json").read_bytes())["result"]["bits_per_byte"]
    assert text.bits_per_byte(scored_by(source.network)) == pytest.approx(expected, abs=1e-6)


def test_without_its_data_a_run_has_no_held_out_text(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "tales"
    shutil.copytree(trained, run)
    assert held_out.held_out(load_source(run / "ckpt-last.pt")) is None
    page = page_of(run, tmp_path / "out")
    assert "its sources are unknown" in page
    shutil.copytree(trained.parent.parent / "packed", tmp_path / "packed")
    assert held_out.held_out(load_source(run / "ckpt-last.pt")) is not None
    path = tmp_path / "packed/metadata.json"
    path.write_text(path.read_text("utf-8") + "\n", encoding="utf-8")
    assert held_out.held_out(load_source(run / "ckpt-last.pt")) is None


def test_prompts_fit_and_have_ids_of_the_tokenizer(checkpoint_of: Make) -> None:
    source = load_source(checkpoint_of(vocab_size=400))
    asked = prompts(source)
    assert all(0 < len(ids) <= 64 - 48 and max(ids) < source.tokenizer.vocab_size for ids in asked)
    assert asked[0] == [0]
    assert len(set(HARD_TEXTS)) == len(HARD_TEXTS)


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs/tales")
    main_ok(["export", "--to", "safetensors", "--dry-run"])
    assert not (tmp_path / "exports").exists()
    main_ok(["export", "--to", "safetensors", "--dtype", "bf16", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(told["out"]) == Path("exports/tales-safetensors-bf16")
    assert told["config"] == {"kind": "safetensors", "dtype": "bf16", "licence": None, "title": None, "repo": None}
    assert told["command"].endswith("--to safetensors --out exports/tales-safetensors-bf16 --dtype bf16")
    main_ok(["export", "--to", "safetensors", "--dtype", "bf16"])
    assert "is up to date" in capsys.readouterr().err
    main_ok(["info", "exports/tales-safetensors-bf16"])
    assert "export" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--to", "hugginface"], 2, "unknown export kind `hugginface` (did you mean `huggingface`?)"),
        (["--to", "safetensors", "--dtype", "int8"], 2, "`dtype`: Input should be 'fp32', 'fp16' or 'bf16'"),
        (["--to", "safetensors", "--set", "dtyp=fp16"], 2, "unknown key (did you mean `dtype`?)"),
        (["--to", "safetensors"], 1, "no checkpoint in `runs`"),
        (["--to", "safetensors", "--checkpoint", "nothing.pt"], 1, "`nothing.pt` does not exist"),
    ],
)
def test_wrong_words(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        main(["export", *words])
    assert ending.value.code == code
    assert message in capsys.readouterr().err
