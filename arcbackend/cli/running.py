"""An event loop that a signal ends in good order, and the library's log beside it."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

import structlog
import trio

from arcbackend.cli.arguments import Arguments

__all__ = ["Interrupted", "add_log_option", "logging_as_asked", "run"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):  # no failure that anybody should handle on the way
    """A signal ended the work, which has tidied up.

    Attributes:
        signal: which one.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run it under trio. The first signal cancels it; another ends the process at once.

    Raises:
        Interrupted: a signal ended it.
        Exception: what it raised.
    """
    received: list[int] = []
    cancel: Callable[[], None] | None = None

    def handle(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if cancel is not None:
            with suppress(trio.RunFinishedError):
                cancel()

    async def whole() -> None:
        nonlocal cancel
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            cancel = partial(token.run_sync_soon, scope.cancel)  # as a signal handler may
            if received:
                scope.cancel()
            await work()

    # Ours from before trio begins, so that no moment is left in which it would be trio's own. What
    # is ignored stays so: a shell has that in mind for what runs in the background.
    before = {
        each: signal.signal(each, handle)
        for each in _SIGNALS
        if signal.getsignal(each) is not signal.SIG_IGN
    }
    try:
        trio.run(whole)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if received:
            raise Interrupted(received[0])


def add_log_option(command: argparse.ArgumentParser) -> None:
    """Add the option that `logging_as_asked` reads."""
    command.add_argument(
        "--log", action="store_true", help="write the library's log to standard error"
    )


@contextmanager
def logging_as_asked(arguments: Arguments) -> Iterator[None]:
    """Have the library's log on standard error if it is asked for, and nowhere if it is not.

    structlog's own default would mix it with the command's output.
    """
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if arguments.log else logging.CRITICAL
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )
    try:
        yield
    finally:
        structlog.configure(**before)
