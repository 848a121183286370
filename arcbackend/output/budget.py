"""How many bytes may still come: one account for the call, one for each job. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from arcbackend.output.containment import Refused

__all__ = ["Account", "Allowance"]


@dataclass(slots=True)
class Account:
    """Bytes taken of a limit, those under way included.

    Attributes:
        limit: bytes.
        owner: whose limit it is, for messages.
        taken: bytes that have come.
        reserved: bytes that are set apart for what is about to come.
    """

    limit: int
    owner: str
    taken: int = 0
    reserved: int = 0

    @property
    def left(self) -> int:
        """Bytes that may still come."""
        return self.limit - self.taken - self.reserved


class Allowance:
    """What one member takes of the accounts; given back if the member comes to nothing.

    Args:
        accounts: the accounts that it draws on.
        max_file_bytes: bytes of one member.
    """

    def __init__(self, accounts: tuple[Account, ...], max_file_bytes: int) -> None:
        self._accounts = accounts
        self._most = max_file_bytes
        self.taken = 0

    def announce(self, size: int) -> None:
        """Check a size that the CE announces; nothing is taken: it may be a lie.

        Raises:
            Refused: it is more than may come.
        """
        if size > self._most:
            raise Refused(f"{size} bytes: more than limits.max_file_bytes = {self._most}")
        for account in self._accounts:
            if size - self.taken > account.left:
                raise Refused(
                    f"{size} bytes: more than what is left of limits.max_total_bytes = "
                    f"{account.limit} for {account.owner}"
                )

    def take(self, amount: int) -> None:
        """Take bytes that have arrived.

        Raises:
            Refused: a limit is reached; nothing was taken.
        """
        self._check(amount)
        self._take(amount)

    @contextmanager
    def reserved(self, amount: int) -> Iterator[Callable[[int], None]]:
        """Set bytes apart that are to come within the block; it takes those that do.

        Yields:
            Call it with the number of bytes that have come.

        Raises:
            Refused: as `take`.
        """
        self._check(amount)
        for account in self._accounts:
            account.reserved += amount
        try:
            yield self._take
        finally:
            for account in self._accounts:
                account.reserved -= amount

    def _check(self, amount: int) -> None:
        if self.taken + amount > self._most:
            raise Refused(f"more than limits.max_file_bytes = {self._most}")
        for account in self._accounts:
            if amount > account.left:
                raise Refused(
                    f"limits.max_total_bytes = {account.limit} is reached for {account.owner}"
                )

    def _take(self, amount: int) -> None:
        for account in self._accounts:
            account.taken += amount
        self.taken += amount

    def give_back(self, kept: int = 0) -> None:
        """Give back all but ``kept`` bytes."""
        for account in self._accounts:
            account.taken -= self.taken - kept
        self.taken = kept
