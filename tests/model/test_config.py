from __future__ import annotations

import subprocess
import sys

import pytest
from cases import for_each
from pydantic import ValidationError

from alm.errors import ConfigError
from alm.model.config import ModelConfig


def test_defaults() -> None:
    assert ModelConfig().model_dump(mode="json") == {
        "d_model": 384,
        "n_layers": 8,
        "head_dim": "auto",
        "n_heads": 6,
        "n_kv_heads": 1,
        "ffn_hidden_size": 1536,
        "vocab_size": "auto",
        "max_position_embeddings": 1024,
        "rope_theta": 10000.0,
        "positions": {
            "kind": "rope",
            "scaling": {
                "method": "none",
                "factor": 1.0,
                "original_max_position_embeddings": None,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
            "skip_every": 0,
        },
        "feedforward": {"kind": "swiglu"},
        "attention": {
            "kind": "grouped",
            "window": None,
            "full_every": 4,
            "bias": "none",
            "document_mask": False,
            "end_of_text_id": 0,
        },
        "qk_norm": False,
        "x0_skip": False,
        "value_residual": False,
        "smear": False,
        "copy_init": 0.0,
        "tie_embeddings": True,
        "dropout": 0.0,
        "norm_eps": 1e-6,
    }


def test_what_is_dumped_loads_as_the_same() -> None:
    config = ModelConfig(n_kv_heads=3, vocab_size=100)
    assert ModelConfig.model_validate(config.model_dump(mode="json")) == config


@for_each(
    "values, message",
    [
        ({"d_model": 100, "n_heads": 6}, "n_heads 6 does not divide d_model 100"),
        ({"n_heads": 6, "n_kv_heads": 4}, "n_kv_heads 4 does not divide n_heads 6"),
        (
            {"positions": {"kind": "rope", "scaling": {"method": "yarn", "factor": 2}}},
            "yarn needs original_max_position_embeddings",
        ),
        ({"positions": {"kind": "rope", "scaling": {"factor": 2}}}, "a factor needs a method"),
        (
            {"positions": {"kind": "rope", "scaling": {"method": "llama3", "factor": 8}}},
            "llama3 needs original_max_position_embeddings",
        ),
        (
            {"positions": {"kind": "rope", "scaling": {"low_freq_factor": 4}}},
            "low_freq_factor 4 is not below 4",
        ),
        ({"d_model": 30, "n_heads": 6}, "rope needs an even head width, and d_model 30 / n_heads 6 = 5"),
        ({"head_dim": 7}, "rope needs an even head width, and head_dim = 7"),
        ({"vocab_size": 0}, "greater than 0"),
        ({"vocab_size": "all"}, "'auto'"),
        ({"dropout": 1.0}, "less than 1"),
        ({"positions": "ropes"}, "unknown kind `ropes` (did you mean `rope`?)"),
        ({"n_head": 6}, "unknown key (did you mean `n_heads`?)"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ModelConfig.model_validate(values)
    assert message in str(caught.value)


def test_the_place_of_a_head_problem_is_its_own_key() -> None:
    with pytest.raises(ValidationError) as caught:
        ModelConfig(d_model=100, n_heads=6)
    assert [error["loc"] for error in caught.value.errors()] == [("n_heads",)]


def test_heads_as_wide_as_they_are_told() -> None:
    assert ModelConfig(d_model=96, n_heads=6).head_width == 16
    assert ModelConfig(d_model=100, n_heads=6, head_dim=24).head_width == 24


def test_vocab_size_can_be_fixed_later() -> None:
    config = ModelConfig(d_model=60, n_heads=6)
    fixed = config.with_vocab_size(500)
    assert fixed.known_vocab_size == 500
    assert fixed.model_dump(exclude={"vocab_size"}) == config.model_dump(exclude={"vocab_size"})
    with pytest.raises(ConfigError, match="does not fit a tokenizer of 0 tokens"):
        config.with_vocab_size(0)


def test_an_unknown_vocab_size_says_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        _ = ModelConfig().known_vocab_size
    assert "`model.vocab_size` is `auto`" in caught.value.message
    assert caught.value.hint == "set it: `--set model.vocab_size=32000`"


def test_every_field_is_described() -> None:
    assert all(field.description and field.description.endswith(".") for field in ModelConfig.model_fields.values())


def test_reading_a_configuration_and_counting_do_not_import_torch() -> None:
    code = (
        "import sys; from alm.model.config import ModelConfig; from alm.model.count import count;"
        "count(ModelConfig(vocab_size=9)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_setting_of_the_usual_kind_needs_no_kind() -> None:
    model = ModelConfig.model_validate({"attention": {"window": 64}, "positions": {"scaling": {"factor": 1.0}}})
    assert model.attention.model_dump()["window"] == 64
    assert model.positions.model_dump()["kind"] == "rope"
