"""Settings of the data loader."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alm.config.base import Config

_LEAST, _MOST = 1e-9, 1e9  # limits of weights, so that their sums and quotients stay finite


class DataConfig(Config):
    """Settings for reading batches."""

    mixture: dict[str, float] | None = Field(
        default=None,
        description="Token weight of each source, as in {stories: 3, code: 1}. Only the ratios matter. Sources without "
        "a weight are not read. Absent: every sequence is read once per epoch.",
    )
    recut: bool | Literal["auto"] = Field(
        default=False,
        description="Whether each pass over the text after the first cuts its rows at other places; auto: where the "
        "data was packed with concat. Repeated text teaches more that way. A pass leaves out less than a row at the "
        "beginning of a source.",
    )
    prefetch: int = Field(default=2, ge=0, le=64, description="Steps to read ahead; 0 reads in the main thread.")

    @model_validator(mode="before")
    @classmethod
    def _explain_workers(cls, given: Any) -> Any:  # Any: raw YAML
        for key in ("num_workers", "workers", "dataloader_workers"):
            if isinstance(given, dict) and key in given:
                raise ValueError(
                    f"`{key}` is not a key: one thread reads batches ahead, `data.prefetch` sets how many steps"
                )
        return given

    @field_validator("mixture")
    @classmethod
    def _weights_are_shares(cls, mixture: dict[str, float] | None) -> dict[str, float] | None:
        if mixture is not None and not (
            all(weight == 0 or _LEAST <= weight <= _MOST for weight in mixture.values()) and any(mixture.values())
        ):
            raise ValueError(f"each weight must be 0 or from {_LEAST:g} to {_MOST:g}, and at least one above 0")
        return mixture
