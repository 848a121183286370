"""A job's GLUE2 document: the ``ComputingActivity`` of ``jobs?action=info``.

A-REX renders it from XML: every value is text, a list of one element is that element, and REST 1.0
and 1.1 differ in where they put lists. What is published, and when, is in ``ARC1ClusterInfo.pm`` in
A-REX's infoproviders; before the information provider has seen a job there is less of it
(``processJobInfo`` in rest.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arcbackend.protocol.rendering import as_list

__all__ = ["Activity", "activity_of"]

_ARCREST, _NORDUGRID = "arcrest:", "nordugrid:"
# Of a list that a hostile CE made longer, the rest is left out.
_MOST = 100


@dataclass(frozen=True, slots=True)
class Activity:
    """One document. Its texts are the CE's, and in part the job's: not cleaned, not bounded."""

    fields: dict[str, Any]

    def __contains__(self, key: str) -> bool:
        """Tell whether the document has this element, be it empty."""
        return key in self.fields

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of all elements of this name, empty ones left out."""
        found = as_list(self.fields.get(key))[:_MOST]
        return tuple(text for text in found if isinstance(text, str) and text)

    def text(self, key: str) -> str | None:
        """The text of the first element of this name; None if there is none, or it is empty."""
        return next(iter(self.texts(key)), None)

    @property
    def state(self) -> str | None:
        """The ARC state, in REST's words."""
        return self._state(_ARCREST)

    @property
    def failed_in(self) -> str | None:
        """The job manager's state in which the job failed or was killed, e.g. ``PREPARING``.

        From ``nordugrid:FAILED::PREPARING`` (``glueState`` in ``ARC1ClusterInfo.pm``).
        """
        return (self._state(_NORDUGRID) or "").partition("::")[2] or None

    @property
    def created(self) -> str | None:
        """When the document was made, in the CE's words."""
        attributes = self.fields.get("_attributes")
        found = attributes.get("CreationTime") if isinstance(attributes, dict) else None
        return found if isinstance(found, str) else None

    def _state(self, dialect: str) -> str | None:
        states = (text for text in self.texts("State") if text.startswith(dialect))
        return next((text[len(dialect) :] for text in states if text != dialect), None)


def activity_of(document: Any) -> Activity:
    """The activity in a job's document; one without fields if there is none."""
    found = _only(document)
    activity = _only(found.get("ComputingActivity")) if isinstance(found, dict) else None
    return Activity(activity if isinstance(activity, dict) else {})


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else value
