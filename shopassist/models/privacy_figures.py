"""What people decided about their data, counted: numbers only, by words of ours."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product

from shopassist.models.consent_history import ConsentEvent
from shopassist.models.erasure import Erasure
from shopassist.models.notice import MARKETING, TERMS

DECISIONS = ("granted", "withdrawn")
OTHER = "other"
"""Purposes that an operator has named: one value, so that nobody but us decides how many series there are."""


@dataclass(slots=True)
class PrivacyFigures:
    """What a process did: decisions by purpose and answer, and erasures that it finished, by who asked."""

    decisions: Counter[tuple[str, str]] = field(
        default_factory=lambda: Counter(dict.fromkeys(product((TERMS, MARKETING, OTHER), DECISIONS), 0))
    )
    erasures: Counter[str] = field(default_factory=Counter)

    def decided(self, events: Iterable[ConsentEvent]) -> None:
        """Count decisions, once they are committed."""
        for event in events:
            purpose = event.purpose if event.purpose in {TERMS, MARKETING} else OTHER
            self.decisions[purpose, DECISIONS[not event.granted]] += 1

    def erased(self, erasure: Erasure) -> None:
        """Count an erasure that is finished."""
        self.erasures[erasure.asked_by] += 1
