"""Structured concurrency for verbs: many like things at once, one exception out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

__all__ = ["run_all"]

_T = TypeVar("_T")


async def run_all(
    work: Callable[[_T], Awaitable[None]], items: Iterable[_T], *, workers: int = 32
) -> None:
    """Do ``work`` for every item, at most ``workers`` at a time, and return when all is done.

    The first `Exception` cancels the rest and is raised as it is, not in a group: a verb's caller
    catches `InterCEdeError`, and the others would only repeat it.
    """
    failed: Exception | None = None
    queue = iter(items)

    async def worker(cancel: trio.CancelScope) -> None:
        nonlocal failed
        for item in queue:
            try:
                await work(item)
            except Exception as error:
                if failed is None:
                    failed = error
                cancel.cancel()
                return

    async with trio.open_nursery() as nursery:
        for _ in range(workers):
            nursery.start_soon(worker, nursery.cancel_scope)
    if failed is not None:
        raise failed
