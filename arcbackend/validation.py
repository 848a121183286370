"""From what people write to pydantic models, with complaints in words for people."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from arcbackend.errors import ConfigurationError

__all__ = ["read_toml", "validated"]

_Model = TypeVar("_Model", bound=BaseModel)


def validated(model: type[_Model], data: Mapping[str, Any], whole: str) -> _Model:
    """Make a model of what was read.

    Args:
        model: the model.
        data: the fields.
        whole: what to call the thing itself, where a fault is in no field.

    Raises:
        ConfigurationError: naming each field at fault, without the values: one may be a misplaced
            secret.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or whole}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
    raise ConfigurationError(faults)


def read_toml(
    path: Path | Traversable, whole: str, make: Callable[[dict[str, Any]], _Model]
) -> _Model:
    """Read a TOML file and make a model of it.

    Args:
        path: the file.
        whole: what it holds, in errors.
        make: from the file's top level to the model.

    Raises:
        ConfigurationError: the file cannot be read, is not TOML, or what ``make`` complains of;
            naming the file.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"cannot read the {whole} {path}: {error}") from None
    try:
        return make(data)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}") from None
