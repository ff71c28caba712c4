"""Which language a text is in, and whether the model's card lists that language."""

from __future__ import annotations

import functools
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from rerank_nli import inputs
from rerank_nli.errors import InputTypeError, require
from rerank_nli.manifest import stated_languages
from rerank_nli.types import Foreign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rerank_nli.engines import Engine
    from rerank_nli.reranker import NLIReranker

__all__ = ["card_languages", "unlisted_languages"]

# What benchmarks/languages.py found on every sixth text of its English sets: no text is reported there.
_LISTED = 0.01  # most that the card's languages together may have
_LEAST = 0.2  # least that the language itself must have
_LETTERS = 15  # bytes of letters in UTF-8: 15 letters of Latin script, 5 Chinese characters
_READ = 2_000  # characters that the language is read off
_NO_LANGUAGE = "zxx"  # numbers, code, markup
# ISO 639-3's members of a macrolanguage, which a card lists as one, and codes that were replaced.
_MEMBERS = {
    "ar": ("arb", "ary", "arz"),
    "ff": ("fuv",),
    "gn": ("gug",),
    "he": ("iw",),
    "id": ("in",),
    "ku": ("sdh",),
    "no": ("nb", "nn"),
    "tl": ("fil",),
    "uz": ("uzs",),
    "zh": ("cmn", "wuu", "yue"),
}
_SAME = {member: code for code, members in _MEMBERS.items() for member in members}


def card_languages(model: NLIReranker | Engine) -> list[str]:
    """The languages that the model's card lists, as it writes them; empty where it names none or there is no card.

    That is `languages` in the manifest of a bundle, or `language` in the metadata of a checkpoint's README.md.

    Raises:
        InputTypeError: no model, but its name.
    """
    if isinstance(model, str | os.PathLike):
        message = f"expected a reranker or an engine, got {model!r}: use NLIReranker({str(model)!r})"
        raise InputTypeError(message)
    folder = getattr(getattr(model, "engine", model), "folder", None)
    return [] if folder is None else stated_languages(folder)


def unlisted_languages(
    model: NLIReranker | Engine, texts: Iterable[Any], listed: Iterable[str] | None = None
) -> list[Foreign]:
    """Report texts in a language that the model's card does not list (needs the `lang` extra, py3langid).

    Its scores for such texts may mean little. Nothing is reported of a text of fewer than 15 letters (fewer where a
    letter takes more than one byte of UTF-8), of numbers and code, where the identifier is not sure, and where the card
    names no language that the identifier knows, as when all it says is "multilingual".

    Args:
        model: a reranker or an engine.
        texts: each as a passage of `NLIReranker.rank`.
        listed: ISO 639 codes in the place of the card's, as "en" or "pt-BR".

    Returns:
        What is reported, in the order of the texts.

    Raises:
        MissingExtraError: py3langid is not installed.
        InputTypeError: something that is no text, or `listed` is no list of them.
    """
    identifier = _identifier()
    codes = card_languages(model) if listed is None else inputs.listed("listed", listed)
    for code in codes:
        if not isinstance(code, str):
            message = f"listed must hold codes of languages, as 'en', got {code!r}"
            raise InputTypeError(message)
    known = {_same(code) for code in codes} & {_same(label) for label in identifier.labels}
    read = [inputs.text_and_id(f"text {i}", text)[0] for i, text in enumerate(inputs.listed("texts", texts))]
    found = {text: _unlisted(text, known) for text in dict.fromkeys(read)} if known else {}
    return [Foreign(i, *report) for i, text in enumerate(read) if (report := found.get(text))]


def _unlisted(text: str, known: set[str]) -> tuple[str, float] | None:
    """The language of a text and its probability, if it is none of the known ones and that is sure."""
    text = text[:_READ]
    if len("".join(filter(str.isalpha, text)).encode()) < _LETTERS:
        return None
    chances: Counter[str] = Counter()
    for code, probability in _identifier().rank(text):
        chances[_same(code)] += probability
    ((language, probability),) = chances.most_common(1)
    listed = sum(chances[code] for code in known)
    sure = language not in {*known, _NO_LANGUAGE} and listed <= _LISTED and probability >= _LEAST
    return (language, float(probability)) if sure else None


def _same(code: str) -> str:
    """The code that stands for a language: "pt" for "pt-BR", "ar" for "arz"."""
    primary = code.strip().lower().replace("_", "-").split("-")[0]
    return _SAME.get(primary, primary)


@functools.cache
def _identifier() -> Any:  # noqa: ANN401 - the extra is optional, so its types cannot be named here
    """py3langid's model, read once; it holds nothing that changes, so threads may share it."""
    module = require("py3langid.langid", "lang")
    return module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)
