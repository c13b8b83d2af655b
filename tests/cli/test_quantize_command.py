"""`alm quantize`: what it writes, what it says, who uses the result, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import for_each

from alm.artifacts import QuantizedCost
from alm.export import quantize_cost, quantize_text
from alm.export.held_out import held_out
from alm.export.source import load_source
from alm.quant.file import read

RUN = "runs/pretrain"
QUICK = ["--samples", "4"]


def test_a_quantized_model_is_used_like_its_run(trained: Path, run: Any) -> None:
    code, out, err = run("quantize", RUN, "--to", "int8", *QUICK)
    assert code == 0, err
    assert "next: alm sample --checkpoint runs/pretrain-int8" in err
    made = json.loads(run("quantize", RUN, "--to", "int8", *QUICK, "--json")[1])
    assert "is up to date" in run("quantize", RUN, "--to", "int8", *QUICK)[2]
    cost = made["cost"]
    assert made["bytes_before"] == 4 * made["parameters"] == 4 * sum(made["tensors"].values())
    assert f"{cost['bits_per_byte']:.4f} bits/byte" in out
    assert cost["bits_per_byte"] == pytest.approx(cost["bits_per_byte_before"], abs=0.01)
    assert 0 < cost["kl_mean"] <= cost["kl_99"] < 0.01
    greedy = ["--temperature", "0", "--max-tokens", "12", "--prompt", "the"]
    texts = {run("sample", "--checkpoint", folder, *greedy)[1] for folder in (RUN, "runs/pretrain-int8")}
    assert len(texts) == 1
    code, out, err = run("info", "runs/pretrain-int8")
    assert (code, out.startswith("quantized model  runs/pretrain-int8"), "int8" in out) == (0, True, True), err
    code, _, err = run("export", "--checkpoint", "runs/pretrain-int8", "--to", "safetensors")
    assert code == 0, err


def test_the_cost_is_measured_on_text_that_is_held_out(trained: Path) -> None:
    """Before rounding: the score that exports use. Of the same model twice: nothing."""
    source = load_source(Path(RUN))
    texts, rows = quantize_text.of_run(source), held_out(source)
    assert isinstance(texts, quantize_text.Texts)
    assert texts.calibration_name == "training text of `data/packed`"
    assert rows is not None
    model = source.network
    found = quantize_cost.cost(model, model, source.tokenizer, texts, samples=3)
    expected = rows.bits_per_byte(lambda inputs, targets: model.token_losses(model(inputs), targets))
    assert found.bits_per_byte == found.bits_per_byte_before == pytest.approx(expected, rel=1e-5)
    assert (found.kl_mean, found.kl_99, found.same_top, found.difference_margin) == (0, 0, 1, 0)
    assert found.non_words == found.non_words_before


def test_int4_is_calibrated_on_given_text(trained: Path, run: Any) -> None:
    Path("book.txt").write_text("\n".join(f"the fox sees hen {number}" for number in range(2000)))
    code, _, err = run("quantize", RUN, "--to", "int4", "--text", "book.txt", *QUICK, "--force", "--out", "q4")
    assert code == 0, err
    made = json.loads(run("quantize", RUN, "--to", "int4", "--text", "book.txt", *QUICK, "--out", "q4", "--json")[1])
    assert made["calibration"] == "the first four fifths of `book.txt`"
    assert made["cost"]["text"] == "the last fifth of `book.txt`"
    assert made["cost"]["non_words"] is None  # the model has read more than this book
    assert made["cost"]["difference_margin"] is not None
    assert [Path(each["path"]).name for each in made["inputs"]][-1] == "book.txt"
    assert read(Path("q4/quantized.safetensors")).block.to == "int4"


def test_a_model_without_text_is_rounded_with_a_warning(trained: Path, run: Any) -> None:
    Path("data/packed").rename("data/aside")
    code, out, err = run("quantize", RUN, "--to", "int4")
    said = ("rounded without calibration" in err, "`data/packed` holds no packed data" in err, "`--text FILE`" in err)
    assert (code, said, "bits/byte" in out) == (0, (True, True, True), False), err
    assert json.loads(run("quantize", RUN, "--to", "int4", "--json")[1])["cost"] is None
    Path("data/aside").rename("data/packed")
    assert run("quantize", RUN, "--to", "int4")[0] == 1  # made from other inputs: nothing was measured


def test_a_model_that_becomes_much_worse_is_not_kept(trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quantize_cost.MOST_BITS_PER_BYTE, "int8", -1.0)
    code, _, err = run("quantize", RUN, *QUICK)
    assert (code, "is much worse, so nothing was kept" in err, "`--force` keeps it anyway" in err) == (1, True, True)
    assert not Path("runs/pretrain-int8/quantized.json").exists()
    code, _, err = run("quantize", RUN, *QUICK, "--force")
    assert (code, "is much worse" in err) == (0, True)


def test_a_run_is_named_from_inside_its_folder(trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RUN)
    for words in (["."], ["ckpt-last.pt"]):
        out = json.loads(run("quantize", *words, *QUICK, "--json")[1])["out"]
        assert Path(out).resolve() == (trained / "runs" / "pretrain-int8")
    for words in (["nowhere"], ["../pretrain", "--out", "."], ["--to", "int8", "--tables", "int4"]):
        assert run("quantize", *words)[0] in (1, 2)
    code, _, err = run("quantize", "../pretrain", "--text", "nowhere.txt", "--dry-run")
    assert (code, "nowhere.txt" in err) == (1, True)


def test_a_copy_of_the_weights_alone_is_shown(trained: Path, run: Any) -> None:
    assert run("quantize", RUN, *QUICK)[0] == 0
    Path("copy").mkdir()
    for name in ("quantized.safetensors", "tokenizer.json"):
        shutil.copy(Path("runs/pretrain-int8", name), Path("copy", name))
    assert run("info", "copy")[1].startswith("quantized model  copy\n  type")
    code, _, err = run("sample", "--checkpoint", "copy", "--max-tokens", "2")
    assert (code, "cannot be verified" in err) == (0, True)


def test_what_is_calibrated_on_is_not_measured(trained: Path) -> None:
    source = load_source(Path(RUN))
    Path("book.txt").write_text(" ".join(map(str, range(1500))))
    ids = source.tokenizer.encode(Path("book.txt").read_text())
    texts = quantize_text.of_files([Path("book.txt")], source)
    first, second = (
        [batch.inputs[0].tolist() for batch in batches] + [batches[-1].targets[0, -1:].tolist()]
        for batches in (texts.calibration, texts.measured)
    )
    assert [id_ for part in (first, second) for row in part for id_ in row] == ids


def test_calibration_is_limited_in_any_order_of_texts() -> None:
    rows = [quantize_text.MicroBatch(torch.zeros(1, size), torch.zeros(1, size)) for size in (4, *[512] * 40)]
    for batches in (rows, rows[::-1]):
        assert 3000 < sum(each.inputs.numel() for each in quantize_text._some(batches, 4096)) <= 4096
    assert quantize_text._some(rows[:1], 2) == rows[:1]
    assert quantize_text._some(rows, 1 << 20) == rows


def test_non_words_are_counted() -> None:
    fields = {"text": "t", "tokens": 9, "bits_per_byte_before": 1.0, "bits_per_byte": 1.0}
    fields |= {"difference_margin": 0.0, "kl_mean": 0.0, "kl_99": 0.0, "same_top": 1.0, "non_words_before": 0.02}
    made = QuantizedCost.model_validate
    assert quantize_cost.refusals(made({**fields, "non_words": 0.03}), "int4") == []
    assert "5.0% of the sampled words" in quantize_cost.refusals(made({**fields, "non_words": 0.05}), "int4")[0]
    by_chance = made({**fields, "non_words": 0.05, "non_words_margin": 0.03})
    assert quantize_cost.refusals(by_chance, "int4") == []
    found = quantize_cost._NonWords.of([(1, 10), (0, 10)], [(2, 10), (1, 10)])
    assert (found.before, found.after, found.margin) == pytest.approx((0.05, 0.15, 0.0))


@for_each(
    "words, said",
    [
        (["--to", "int9"], "use `--to int8` or `int4`"),
        (["--to", "int4", "--tables", "q4"], "`--tables q4` is not a type of rounded weights"),
        (["--out", RUN], "is the folder of a run"),
        (["--text", "short.txt"], "is too short"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_wrong_input_is_named(trained: Path, run: Any, words: list[str], said: str) -> None:
    Path("short.txt").write_text("the fox")
    code, out, err = run("quantize", RUN, *words)
    assert (code in (1, 2), out, said in err) == (True, "", True), err


def test_codes_are_not_trained_or_rounded_again(trained: Path, run: Any) -> None:
    assert run("quantize", RUN, *QUICK)[0] == 0
    quantized = "runs/pretrain-int8"
    code, _, err = run("quantize", quantized, "--to", "int4")
    assert (code, "is quantized already" in err) == (1, True)
    for words in (["pretrain", "--init", quantized], ["finetune", "--model", quantized, "--data", "my-texts"]):
        code, _, err = run(*words, "--out", "runs/more")
        assert (code, "holds rounded weights" in err) == (1, True), err
    damaged = Path(quantized) / "quantized.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00\x00")
    code, _, err = run("sample", "--checkpoint", quantized)
    assert (code, "its hash differs" in err) == (1, True), err
    assert run("info", quantized)[0] == 1


@torch.no_grad()
def test_conversations_and_their_turns_stay(trained: Path, run: Any) -> None:
    Path(RUN, "chat_template.jinja").write_text("{{ messages }}")
    code, _, err = run("quantize", RUN, *QUICK)
    assert (code, "next: alm chat runs/pretrain-int8" in err) == (0, True)
    assert Path("runs/pretrain-int8/chat_template.jinja").read_text() == "{{ messages }}"
