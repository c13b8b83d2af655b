"""What every configuration is: frozen, and strict about keys, with a neighbour named for each typo.

A field of a kind (`positions: rope`) is declared as

    positions: Annotated[Config, OfKind("alm.model.positions")]

and holds the `Config` of the module that the value's `kind` names. A plain string means `{kind: <string>}`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from alm import kinds

# Bounds of what is counted (steps, sequences, tokens), of bytes, and of seeds: no arithmetic with them overflows.
MANY, MANY_BYTES, SEEDS = 10**9, 10**15, 2**63


class Config(BaseModel):
    """A frozen value object. Unknown keys are refused, each with its nearest neighbour.

    Defaults are validated too, so that a check that looks at several fields never misses one that was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_neighbours(cls, data: Any, handler: Callable[[Any], Self]) -> Self:  # Any: raw YAML
        try:
            return handler(data)
        except ValidationError as error:
            # from None: the plain message of pydantic would only repeat this one.
            raise ValidationError.from_exception_data(
                cls.__name__, [_reworded(cls, e) for e in error.errors()]
            ) from None


def _reworded(cls: type[BaseModel], error: Any) -> InitErrorDetails:  # Any: pydantic_core.ErrorDetails is not exported
    location = tuple(error["loc"])
    if error["type"] == "extra_forbidden" and len(location) == 1:
        message = unknown_key(str(location[0]), cls.model_fields)
        kind = "unknown_key"
    else:
        message, kind = error["msg"], error["type"]
    # The message goes in as a value: braces in user text must not be read as placeholders.
    return InitErrorDetails(
        type=PydanticCustomError(kind, "{message}", {"message": message}), loc=location, input=error["input"]
    )


def unknown_key(key: str, known: Iterable[str]) -> str:
    """`unknown key`, with the known key that looks most like `key` if one does."""
    return "unknown key" + did_you_mean(key, known)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean `x`?)` for the nearest of `known`, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


@dataclass(frozen=True)
class OfKind:
    """Marks a field whose value is the `Config` of one of the kinds in `package`.

    A mapping without `kind` means `default`, where there is one.
    """

    package: str
    default: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Serialized by what it is, not by the declared base class, which has no fields.
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(_dump)
        )

    def validate(self, value: Any) -> Config:
        """The kind's own `Config`; every problem keeps its place below this field."""
        if isinstance(value, Config):
            return value
        values = {"kind": value} if isinstance(value, str) else value
        if not isinstance(values, dict):
            raise PydanticCustomError("kind", "Input should be the name of a kind or a mapping with `kind`")
        known = kinds.names(self.package)
        kind = values.get("kind", self.default)
        if not isinstance(kind, str) or kind not in known:
            raise PydanticCustomError("kind", "{message}", {"message": _unknown_kind(kind, known)})
        config: Config = kinds.load(self.package, kind).Config.model_validate({**values, "kind": kind})
        return config


def _unknown_kind(kind: object, known: list[str]) -> str:
    listed = ", ".join(known)
    if kind is None:
        return f"`kind` is missing (one of: {listed})"
    return f"unknown kind `{kind}`{did_you_mean(str(kind), known)} (one of: {listed})"


def _dump(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")
