"""A memory of what was used last."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import Any, Generic, TypeVar

__all__ = ["Cache"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Cache(Generic[_Key, _Value]):
    """At most `size` values, those that were used last.

    It holds no lock, so that a fork cannot leave one locked: every step is atomic, and losing a race costs one value,
    or one count of `hits` and `misses`.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.hits = self.misses = 0
        self._values: OrderedDict[_Key, _Value] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process starts with an empty one."""
        return Cache, (self.size,)

    def get(self, key: _Key) -> _Value | None:
        """The value, if it is still there."""
        value = self._values.get(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        with suppress(KeyError):  # another thread has just dropped it
            self._values.move_to_end(key)
        return value

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value, and drop the one that was used longest ago where there are too many."""
        self._values[key] = value
        while len(self._values) > self.size:
            with suppress(KeyError):  # another thread has just emptied it
                self._values.popitem(last=False)
