"""Moments: now, and times in a CE's words."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["utc", "utc_now"]

# What A-REX's scripts write: YYYYMMDDHHMMSSZ.
_RECORD = re.compile(r"(\d{8})(\d{6}Z)", re.ASCII)


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


def utc(text: str | None) -> datetime | None:
    """A time in ISO 8601, or as A-REX's records have it; None if it is none.

    GLUE2's times are in UTC, whether they say so or not.
    """
    record = _RECORD.fullmatch(text or "")
    try:
        time = datetime.fromisoformat(f"{record[1]}T{record[2]}" if record else text or "")
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
