"""Every error that rerank-nli raises on purpose, so that a caller can catch one base or one cause.

    RerankNLIError
    ├── InputError (ValueError)            a value that cannot be used: a threshold, a name, a blank query
    │   └── QueryTooLongError              the query leaves too few tokens for a passage
    ├── InputTypeError (TypeError)         not a text, not a pair, not a passage
    ├── LabelError (ValueError)            the checkpoint's outputs cannot be told apart, or there is no such output
    ├── ModelNotFoundError (FileNotFoundError)   no such folder, Hub id or file in it
    ├── DamagedModelError (ValueError)     a file that is there and cannot be read, or is not the one that was written
    ├── ExportError (ValueError)           an export that does not score as its source
    ├── CalibrationError (ValueError)      what was fitted for other settings, or a fit that cannot be had
    └── MissingExtraError (ImportError)    an optional dependency that is not installed

A message says what was wrong, where, and what would mend it.
"""

from __future__ import annotations

import importlib
import math
import re
from numbers import Integral, Rational, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

__all__ = [
    "CalibrationError",
    "DamagedModelError",
    "ExportError",
    "InputError",
    "InputTypeError",
    "LabelError",
    "MissingExtraError",
    "ModelNotFoundError",
    "QueryTooLongError",
    "RerankNLIError",
    "counted",
    "is_number",
    "one_of",
    "require",
]


class RerankNLIError(Exception):
    """Base of every error that this package raises on purpose."""

    def __str__(self) -> str:
        """One line, whatever a library's own message in it was."""
        return re.sub(r"\s*\n\s*", " ", super().__str__()).strip()


class InputError(RerankNLIError, ValueError):
    """A value that cannot be used."""


class QueryTooLongError(InputError):
    """The query leaves too few tokens for a passage; the query itself is never cut."""


class InputTypeError(RerankNLIError, TypeError):
    """Something that is not a text, a pair or a passage."""


class LabelError(RerankNLIError, ValueError):
    """The checkpoint's outputs cannot be told apart, or it has no such output."""


class ModelNotFoundError(RerankNLIError, FileNotFoundError):
    """No such folder, Hub id, or file in it."""


class DamagedModelError(RerankNLIError, ValueError):
    """A model file that is there but cannot be read, or is not the one that its manifest describes."""


class ExportError(RerankNLIError, ValueError):
    """An export that does not score as its source."""


class CalibrationError(RerankNLIError, ValueError):
    """A calibration, guarantee or other fit that is for other settings, or that the data cannot give."""


class MissingExtraError(RerankNLIError, ImportError):
    """An optional dependency that is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: name of the module to import.
        extra: the extra of this package that brings it.

    Raises:
        MissingExtraError: it is not installed; the message is the pip command that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        message = f"{module} is needed here and cannot be imported ({error}): pip install 'rerank-nli[{extra}]'"
        raise MissingExtraError(message, name=module) from error


def counted(what: str, value: object, least: int = 1, most: float = math.inf) -> int:
    """A whole number in a range, as an int.

    Raises:
        InputError: it is no whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        message = f"{what}={value!r}: expected a whole number from {least}{f' to {most}' if most < math.inf else ''}"
        raise InputError(message)
    return int(value)


def is_number(value: object) -> bool:
    """Whether a value is a finite real number, of Python's or numpy's, and no bool.

    >>> [is_number(value) for value in (0.5, 1, True, "1", float("nan"), 10**400)]
    [True, True, False, False, False, False]
    """
    fraction = isinstance(value, Rational) and not isinstance(value, Integral)  # which numpy does not compute with
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and not fraction and math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def one_of(what: str, value: object, valid: Iterable[object]) -> None:
    """Refuse a name that is not among the valid ones, and list those.

    Raises:
        InputError: `value` is none of `valid`.
    """
    names = list(valid)
    if value not in names:
        message = f"unknown {what} {value!r}: expected one of {', '.join(map(repr, names))}"
        raise InputError(message)
