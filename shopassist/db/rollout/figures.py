"""What a rollout did in this process."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class RolloutFigures:
    """Moves by the side they went to, moves that did not succeed, and what comparing came to.

    `asked` are operations by side; `differences` answers of the two sides that were not the same, by operation;
    `shadow_failures` questions that the other side did not answer.
    """

    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    move_failures: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)
    shadow_failures: int = 0
