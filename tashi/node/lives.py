"""What an agent knows of the instances on its host: one life for each incarnation, found by instance or by the UUID of its domain.

Two incarnations of one instance id have the same domain UUID. What is done for them is done one after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from tashi.model.causes import Cause
from tashi.model.orders import Observation
from tashi.node.life import ALIVE, Key, Life

MOST_ENDED: Final = 10_000
"""How many lives that have ended are remembered."""


class Lives:
    """The lives of one host."""

    def __init__(self) -> None:
        self._lives: dict[Key, Life] = {}
        self._by_domain: dict[str, list[Life]] = {}
        self._ended: dict[Key, None] = {}  # longest ended first

    def __iter__(self) -> Iterator[Life]:
        """All of them, as they are now."""
        return iter(list(self._lives.values()))

    def of(self, key: Key) -> Life | None:
        """The life of this incarnation, if anything is known of it."""
        return self._lives.get(key)

    def begin(self, key: Key, domain: str) -> Life:
        """Return the life of this incarnation, a new one where nothing is known of it."""
        life = self._lives.get(key)
        if life is None:
            life = self._lives[key] = Life(key, domain)
            self._by_domain.setdefault(domain, []).append(life)
        return life

    def of_domain(self, domain: str) -> tuple[Life, ...]:
        """The lives that share the UUID of this domain."""
        return tuple(self._by_domain.get(domain, ()))

    def is_busy(self, domain: str) -> bool:
        """Return whether something is under way for this domain, for whatever incarnation."""
        return any(life.busy for life in self.of_domain(domain))

    def of_instance(self, instance_id: int) -> list[Life]:
        """The lives of this instance id."""
        return [life for life in self._lives.values() if life.instance_id == instance_id]

    def recognized(self, observation: Observation) -> Observation:
        """Return the observation; one of a domain that has lost its mark as one of the incarnation that was last known to have it."""
        if observation.cause is Cause.UNMARKED:
            for life in self.of_instance(observation.instance_id):
                if life.last is not None and (life.last.seen in ALIVE or life.last.cause is Cause.UNMARKED):
                    return msgspec.structs.replace(observation, incarnation=life.incarnation, generation=life.generation)
        return observation

    def goes_on(self, life: Life) -> None:
        """The life has not ended, or begins again."""
        self._ended.pop(life.key, None)

    def has_ended(self, life: Life) -> list[Life]:
        """The life has ended just now. Forget those that ended longest ago, beyond `MOST_ENDED`, and return them."""
        forgotten = []
        self._ended.pop(life.key, None)
        self._ended[life.key] = None
        while len(self._ended) > MOST_ENDED:
            oldest = self._lives.pop(next(iter(self._ended)))
            del self._ended[oldest.key]
            self._by_domain[oldest.domain].remove(oldest)
            if not self._by_domain[oldest.domain]:
                del self._by_domain[oldest.domain]
            forgotten.append(oldest)
        return forgotten

    def clear(self) -> None:
        """Forget them all."""
        self._lives.clear()
        self._by_domain.clear()
        self._ended.clear()
