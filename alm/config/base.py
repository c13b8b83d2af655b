"""Base of every configuration: frozen, and strict about keys, with a suggestion for each typo.

A field of a kind (`positions: rope`) is declared as

    positions: Annotated[RopeConfig | AlibiConfig, OfKind((RopeConfig, AlibiConfig))]

and holds the one of these classes that the value's `kind` names. Kinds that people add to are the modules of a package:

    scheduler: Annotated[Config, OfKind("alm.optim.schedules")]

A plain string means `{kind: <string>}`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from alm import kinds

# Upper bounds of counts (steps, sequences, tokens), of bytes, and of seeds: arithmetic with them does not overflow.
MANY, MANY_BYTES, SEEDS = 10**9, 10**15, 2**63


class Config(BaseModel):
    """A frozen value object. Unknown keys are refused, each with the nearest known key.

    Defaults are validated too, so that a check of several fields never misses one that was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="wrap")
    @classmethod
    def _name_neighbours(cls, data: Any, handler: Callable[[Any], Self]) -> Self:  # Any: raw YAML
        try:
            return handler(data)
        except ValidationError as error:
            # from None: pydantic's own message would only repeat this one.
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
    # The message is passed as a value: braces in user text must not be read as placeholders.
    return InitErrorDetails(
        type=PydanticCustomError(kind, "{message}", {"message": message}), loc=location, input=error["input"]
    )


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return `unknown key`, with the most similar known key if one is close."""
    return "unknown key" + did_you_mean(key, known)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean `x`?)` for the nearest of `known`, or nothing if none is close."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


@dataclass(frozen=True)
class OfKind:
    """Annotation of a field whose value is the configuration of one of several kinds.

    `kinds` are classes, or a package whose modules have a `Config` each. A mapping without `kind` means `default`, if
    that is set.
    """

    kinds: str | tuple[type[Config], ...]
    default: str | None = None

    def names(self) -> list[str]:
        """List the kinds, sorted."""
        if isinstance(self.kinds, str):
            return kinds.names(self.kinds)
        return sorted(config.model_fields["kind"].default for config in self.kinds)

    def config_of(self, kind: str) -> type[Config]:
        """Return the class of a kind, one of `names()`."""
        if isinstance(self.kinds, str):
            found: type[Config] = kinds.load(self.kinds, kind).Config
            return found
        return next(config for config in self.kinds if config.model_fields["kind"].default == kind)

    def config_of_value(self, value: Any) -> type[Config] | None:  # Any: raw YAML
        """Return the class of the kind that `value` names, or None."""
        kind = value.get("kind", self.default) if isinstance(value, dict) else value
        return self.config_of(kind) if isinstance(kind, str) and kind in self.names() else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Serialized by its own class, not by the declared base class, which has no fields.
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=core_schema.plain_serializer_function_ser_schema(_dump)
        )

    def validate(self, value: Any) -> Config:
        """Return the kind's own `Config`; the location of every problem is below this field."""
        if isinstance(value, Config):
            return value
        values = {"kind": value} if isinstance(value, str) else value
        if not isinstance(values, dict):
            raise PydanticCustomError("kind", "Input should be the name of a kind or a mapping with `kind`")
        known = self.names()
        kind = values.get("kind", self.default)
        if not isinstance(kind, str) or kind not in known:
            raise PydanticCustomError("kind", "{message}", {"message": _unknown_kind(kind, known)})
        return self.config_of(kind).model_validate({**values, "kind": kind})


def kinds_at(schema: type[BaseModel], values: Any, path: Sequence[str]) -> OfKind | None:  # Any: raw YAML
    """Return the kinds of the value at `path` below a model of `schema`, or None if it has none."""
    found: Any = schema
    kinds_: OfKind | None = None
    for key in path:
        if kinds_ is not None:
            found = kinds_.config_of_value(values)
        values = values.get(key) if isinstance(values, dict) else None
        if get_origin(found) is dict:
            found, *marks = get_args(get_args(found)[1]) or (get_args(found)[1],)
        elif isinstance(found, type) and issubclass(found, BaseModel) and key in found.model_fields:
            found, marks = found.model_fields[key].annotation, found.model_fields[key].metadata
        else:
            return None
        kinds_ = next((mark for mark in marks if isinstance(mark, OfKind)), None)
    return kinds_


def _unknown_kind(kind: object, known: list[str]) -> str:
    listed = ", ".join(known)
    if kind is None:
        return f"`kind` is missing (one of: {listed})"
    return f"unknown kind `{kind}`{did_you_mean(str(kind), known)} (one of: {listed})"


def _dump(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")
