"""Settings of sampling, in a module of their own: `alm sample --help` reads them, and must not import PyTorch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from alm.config.base import MANY, Config

# Scores divided by a smaller temperature overflow; one token has all of the probability long before that.
GREEDY_BELOW = 1e-5


class SamplingConfig(Config):
    """Settings that choose the next token, and end a text."""

    temperature: float = Field(
        0.8,
        ge=0,
        le=1e3,
        description="Divides the scores before sampling: below 1 is safer, above 1 is wilder, 0 is greedy.",
    )
    top_k: int = Field(
        40, ge=0, le=MANY, description="Only this many of the likeliest tokens can be chosen; 0 is greedy."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Only the likeliest tokens that together have this probability can be chosen."
    )
    min_p: float = Field(
        0.0, ge=0, le=1, description="Only tokens with this share of the likeliest one's probability can be chosen."
    )
    repetition_penalty: float = Field(
        1.0,
        ge=1e-3,
        le=1e3,
        description="Divides the scores of tokens that are in the prompt or the text; 1: off.",
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="Subtracted from the scores of tokens that were already generated."
    )
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="Subtracted from a token's score for each time it was already generated."
    )
    bad_words: tuple[str, ...] = Field(
        (),
        description="Words whose tokens are never generated in sequence, as encoded alone and after a space.",
    )
    stop: tuple[str, ...] = Field((), description="Texts that end the generation and are not printed.")
    max_tokens: int = Field(50, ge=0, le=MANY, description="Maximum number of tokens to generate.")
    overflow: Literal["refuse", "slide"] = Field(
        "refuse",
        description="At the end of the context: refuse (end the text; a longer prompt is an error), or slide (drop the "
        "older half and continue).",
    )
    seed: int = Field(1337, ge=0, le=2**63 - 1, description="Seed of the random choices.")

    @field_validator("bad_words", "stop")
    @classmethod
    def _are_texts(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if "" in texts:
            raise ValueError("an empty text is in every text")
        return texts

    @model_validator(mode="after")
    def _greedy_has_one_candidate(self) -> Self:
        given = {"top_p": self.top_p, "min_p": self.min_p}
        unused = [
            f"{name} {value:g}" for name, value in given.items() if value != type(self).model_fields[name].default
        ]
        if self.top_k == 0 and unused:
            raise ValueError(
                f"top_k 0 always takes the likeliest token, so {' and '.join(unused)} cannot choose among several; "
                f"for all tokens use top_k {MANY}"
            )
        return self

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < GREEDY_BELOW or self.top_k == 0


class ChatConfig(SamplingConfig):
    """The same for the answers of a conversation."""

    max_tokens: int = Field(512, ge=1, le=MANY, description="Maximum number of tokens of an answer.")
    stop: tuple[str, ...] = Field((), description="Texts that end an answer and are not printed.")
    seed: int = Field(1337, ge=0, le=2**63 - 1, description="Seed of the first answer; each next answer adds one.")

    @field_validator("overflow")
    @classmethod
    def _leaves_by_turns(cls, overflow: str) -> str:
        if overflow != "refuse":
            raise ValueError("the oldest turns of a conversation leave the context by themselves")
        return overflow
