"""A nursery for what goes on beside something, and ends with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

__all__ = ["background"]


@asynccontextmanager
async def background() -> AsyncGenerator[trio.Nursery]:
    """Open a nursery that is cancelled at the end of the block.

    What the block raises is raised as it is, not in a group: its tasks are none of its business.
    """
    failed: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except trio.Cancelled:
            raise
        except BaseException as error:
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
