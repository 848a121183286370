"""All conversations of the likeness test."""

from __future__ import annotations

from collections.abc import Iterable

from tests.simulator.likeness import about_files, about_http, about_identities, about_jobs
from tests.simulator.likeness.steps import Conversation

CONVERSATIONS: tuple[Conversation, ...] = (
    *about_http.CONVERSATIONS,
    *about_jobs.CONVERSATIONS,
    *about_files.CONVERSATIONS,
    *about_identities.CONVERSATIONS,
)


def chosen(kinds: Iterable[str]) -> list[Conversation]:
    """Those of a CE that lets in these kinds of credentials.

    What needs a token only is the same where proxies are let in, too: it is left out there.
    """
    return [each for each in CONVERSATIONS if each.needs == frozenset(kinds)]
