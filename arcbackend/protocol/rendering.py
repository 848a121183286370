"""How A-REX renders lists in JSON."""

from __future__ import annotations

from typing import Any

__all__ = ["as_list"]


def as_list(found: Any) -> list[Any]:
    """The list: REST 1.0 renders one element bare; an empty XML element becomes "" or null."""
    if found in ("", None):
        return []
    return found if isinstance(found, list) else [found]
