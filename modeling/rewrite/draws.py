"""Random choices by name: the same seed and key choose the same, whatever else is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from modeling.data.draw import permutation, share, whole_number

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Draws:
    """All choices about one thing, which `key` names."""

    seed: int
    key: str

    def share(self, name: str) -> float:
        """Uniform in [0, 1)."""
        return share(seed=self.seed, key=self.key, step=0, stream=f"rewrite {name}")

    def pick(self, items: Sequence[Item], name: str) -> Item:
        place = whole_number(
            len(items), seed=self.seed, key=self.key, step=0, stream=f"rewrite {name}"
        )
        return items[place]

    def shuffled(self, items: Sequence[Item], name: str) -> list[Item]:
        order = permutation(
            len(items), seed=self.seed, key=self.key, step=0, stream=f"rewrite {name}"
        )
        return [items[place] for place in order]
