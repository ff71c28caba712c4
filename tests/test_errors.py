"""The exception tree and the two functions that raise from it."""

from __future__ import annotations

import json

import pytest

from rerank_nli import errors
from rerank_nli.errors import InputError, MissingExtraError, RerankNLIError, one_of, require

TREE = {
    "CalibrationError": ValueError,
    "DamagedModelError": ValueError,
    "ExportError": ValueError,
    "InputError": ValueError,
    "InputTypeError": TypeError,
    "LabelError": ValueError,
    "MissingExtraError": ImportError,
    "ModelNotFoundError": FileNotFoundError,
    "QueryTooLongError": InputError,
}


@pytest.mark.parametrize("name", TREE)
def test_one_line(name: str) -> None:
    """An error is one line, also where it quotes a library's message of several; spaces in a line stay."""
    assert (
        str(getattr(errors, name)("it said:\n   'two  spaces'\r\n\n and more.\n")) == "it said: 'two  spaces' and more."
    )


@pytest.mark.parametrize(("name", "builtin"), TREE.items())
def test_one_base_and_one_builtin(name: str, builtin: type[Exception]) -> None:
    """An error can be caught as RerankNLIError and as the builtin that it is a case of."""
    error = getattr(errors, name)
    assert issubclass(error, RerankNLIError)
    assert issubclass(error, builtin)


def test_tree_is_drawn_whole() -> None:
    """The module's docstring names every error with its builtin base."""
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert {error.__name__ for error in classes} == {*TREE, "RerankNLIError"}
    drawn = str(errors.__doc__)
    for name, builtin in TREE.items():
        assert f"{name}" in drawn
        assert builtin is InputError or f"{name} ({builtin.__name__})" in drawn


def test_require_returns_the_module() -> None:
    """A module that is there is imported and returned."""
    assert require("json", "eval") is json


def test_require_names_the_pip_command() -> None:
    """A missing extra is reported with its module and the exact pip command."""
    with pytest.raises(MissingExtraError, match=r"pip install 'rerank-nli\[torch\]'$") as caught:
        require("no_such_module_here", "torch")
    assert caught.value.name == "no_such_module_here"


def test_one_of_lists_the_valid_names() -> None:
    """An unknown name is shown beside those that are valid, from any iterable."""
    one_of("pool", "max", iter(["max", "mean"]))
    with pytest.raises(InputError, match=r"^unknown pool 'median': expected one of 'max', 'mean'$"):
        one_of("pool", "median", iter(["max", "mean"]))
