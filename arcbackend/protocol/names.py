"""What names may look like on a CE."""

from __future__ import annotations

import re

__all__ = ["is_local_id"]

# A-REX makes ids of letters and digits (GenerateJobID in grid-manager/jobs). A dot may stand
# inside, never first: an id becomes a component of URL paths and of paths on our disk.
_LOCAL_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def is_local_id(text: str) -> bool:
    """Tell whether ``text`` can be a CE's own short job id."""
    return _LOCAL_ID.fullmatch(text) is not None
