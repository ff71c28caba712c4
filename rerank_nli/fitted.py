"""What is fitted for some settings alone: it refuses others, and is kept as JSON with the key that names them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rerank_nli.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

__all__ = ["Fitted", "read_json", "write_json"]

_Read = TypeVar("_Read")


class Fitted:
    """What a fit has beside its formula; a subclass is a slotted dataclass with a `key`, and all of it is in its file.

    Attributes:
        key: the settings of the scores that it was fitted on.
    """

    __slots__: tuple[str, ...] = ()
    _name: ClassVar[str]  # what errors call it
    key: dict[str, Any]

    def _try(self) -> None:
        """Apply it to anything: parameters of another form fail here, not at their first use."""
        raise NotImplementedError

    def fits(self, key: Mapping[str, Any]) -> bool:
        """Whether it was fitted for these settings."""
        return not self._differing(key)

    def require_key(self, key: Mapping[str, Any]) -> None:
        """Refuse settings that this was not fitted for.

        Raises:
            CalibrationError: a setting differs; the message names each.
        """
        differing = "; ".join(
            f"{name}: fitted for {self.key.get(name)!r:.80}, used with {key[name]!r:.80}"
            for name in self._differing(key)
        )
        if differing:
            message = f"this {self._name} is for other settings ({differing}): fit one for these"
            raise CalibrationError(message)

    def _differing(self, key: Mapping[str, Any]) -> list[str]:
        return [name for name, value in key.items() if self.key.get(name) != value]

    def to_dict(self) -> dict[str, Any]:
        """What its file holds."""
        return {name: getattr(self, name) for name in self.__slots__}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            CalibrationError: there is no such file, or it holds something else.
        """
        return read_json(path, cls._name, cls._of)

    @classmethod
    def _of(cls, values: dict[str, Any]) -> Self:
        fit = cls(**{name: values[name] for name in cls.__slots__ if name in values} | {"key": dict(values["key"])})
        fit._try()
        return fit


def read_json(path: str | os.PathLike[str], what: str, read: Callable[[Any], _Read]) -> _Read:
    """What a file's JSON is read as.

    Args:
        path: the file.
        what: what an error says that it does not hold.
        read: takes the values, and fails where they are of another form.

    Raises:
        CalibrationError: there is no such file, or it holds something else.
    """
    import json  # slow to import

    try:
        return read(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        message = f"{path} holds no {what} that can be read ({error!r})"
        raise CalibrationError(message) from error


def write_json(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write an object as JSON, whole or not at all."""
    import json  # slow to import

    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
