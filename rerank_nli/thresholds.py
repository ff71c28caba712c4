"""Thresholds by aim, on scores whose truth is known: the best F1 or Youden index, a precision, a recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rerank_nli.errors import CalibrationError, InputError, is_number, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    Aim = str | tuple[str, float]

__all__ = ["AIMS", "best_threshold", "check_aim", "is_share"]

# What a threshold is tuned to: a function of hits, false alarms, misses and right refusals at each threshold.
AIMS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "f1": lambda tp, fp, fn, _tn: 2 * tp / (2 * tp + fp + fn),
    "youden": lambda tp, fp, fn, tn: tp / (tp + fn) - fp / (fp + tn),  # Youden 1950: 2 · balanced accuracy - 1
}
_SHARES = ("precision", "recall")


def is_share(value: object) -> bool:
    """Whether something is a number above 0 and at most 1."""
    return is_number(value) and 0 < value <= 1  # type: ignore[operator]


def check_aim(aim: Aim) -> None:
    """Refuse what is no aim.

    Raises:
        InputError: no name of an aim, nor "precision" or "recall" with a number above 0 and at most 1.
    """
    share = isinstance(aim, tuple | list) and len(aim) == 2 and aim[0] in _SHARES and is_share(aim[1])  # noqa: PLR2004
    if share or (isinstance(aim, str) and aim in AIMS):
        return
    message = (
        f"unknown aim {aim!r}: expected one of {', '.join(map(repr, AIMS))}, or ('precision', 0.9) or ('recall', 0.9) "
        "with a number above 0 and at most 1"
    )
    raise InputError(message)


def best_threshold(scores: ArrayLike, truth: ArrayLike, aim: Aim = "f1", what: str = "the truth") -> float:
    """The threshold that is best by an aim, midway between the two scores that it parts (needs the `eval` extra).

    A precision is reached by the lowest threshold that has it on the sample, a recall by the highest. What the sample
    has, other data may miss: a promise for those is `guarantees.Guarantee`.

    >>> scores, truth = [0.9, 0.6, 0.5, 0.2], [True, True, False, True]
    >>> [best_threshold(scores, truth, aim) for aim in ("youden", ("precision", 0.7), ("recall", 0.5))]
    [0.55, 0.2, 0.55]

    Args:
        scores: (n,) finite numbers.
        truth: (n,), whether each is true.
        aim: "f1"; "youden", which is best where balanced accuracy is; ("precision", share) or ("recall", share).
        what: what an error calls that which is true or not.

    Raises:
        InputError: an unknown aim.
        CalibrationError: scores and truth of different number, scores that are not finite, a truth that is the same
            for all, or a precision that no threshold has.
    """
    check_aim(aim)
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(truth).astype(bool)
    if s.shape != y.shape or s.ndim != 1 or not np.isfinite(s).all():
        message = f"a threshold needs finite scores with a truth each, got {s.shape} scores and {y.shape} of truth"
        raise CalibrationError(message)
    positive, negative = int(y.sum()), int((~y).sum())
    if not positive or not negative:
        message = (
            f"{what} holds for {positive} of its {len(y)} scores: a threshold is tuned on some that it holds for and "
            "some that it does not"
        )
        raise CalibrationError(message)
    curve = require("sklearn.metrics", "eval").roc_curve(y, s, drop_intermediate=False)
    false_rate, true_rate, cuts = (values[1:] for values in curve)  # without the cut that nothing passes
    tp, fp = np.rint(true_rate * positive), np.rint(false_rate * negative)
    if isinstance(aim, str):
        best = int(np.argmax(AIMS[aim](tp, fp, positive - tp, negative - fp)))
    elif aim[0] == "recall":
        best = int(np.argmax(tp / positive >= aim[1]))  # the first is the highest
    else:
        precision = tp / (tp + fp)
        if precision.max() < aim[1]:
            message = (
                f"no threshold gives {what} a precision of {aim[1]:g} on this sample: the best is {precision.max():.4g}"
            )
            raise CalibrationError(message)
        best = int(np.flatnonzero(precision >= aim[1])[-1])
    above, below = cuts[best], cuts[min(best + 1, len(cuts) - 1)]
    middle = (above + below) / 2
    return float(middle if middle > below else above)  # no number lies between neighbours
