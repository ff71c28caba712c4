"""Languages: what a card lists, texts that it does not, tables by language, and pairs of two languages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_nli import (
    Foreign,
    FunctionEngine,
    InputTypeError,
    NLIReranker,
    card_languages,
    load,
    unlisted_languages,
)
from rerank_nli.cli import main
from rerank_nli.manifest import Manifest, stated_languages
from rerank_nli.pairs import read_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXTS = {
    "en": "The ferryman takes the children across the river every morning at seven.",
    "de": "Der Fährmann bringt die Kinder jeden Morgen um sieben Uhr über den Fluss.",
    "fr": "Le passeur emmène les enfants de l'autre côté de la rivière chaque matin.",
    "es": "El barquero lleva a los niños al otro lado del río todas las mañanas.",
    "ru": "Паромщик каждое утро в семь часов перевозит детей через реку.",
    "tr": "Kayıkçı her sabah saat yedide çocukları nehrin karşı kıyısına geçirir.",
    "ar": "ينقل صاحب القارب الأطفال إلى الضفة الأخرى من النهر كل صباح.",
    "hi": "नाविक हर सुबह सात बजे बच्चों को नदी के पार ले जाता है।",
    "th": "คนพายเรือพาเด็กๆ ข้ามแม่น้ำทุกเช้าตอนเจ็ดโมง",
    "zh": "船夫每天早上七点送孩子们过河。",
    "ja": "船頭は毎朝七時に子どもたちを川の向こうへ渡します。",
    "ko": "뱃사공은 매일 아침 일곱 시에 아이들을 강 건너로 데려다준다.",
    "he": "בעל הסירה מעביר את הילדים אל הגדה השנייה בכל בוקר.",
}
PLAIN = FunctionEngine(lambda pairs: [[0.0, 0.0, 0.0] for _ in pairs])


def write_card(folder: Path, text: str) -> Path:
    """The folder with this README.md."""
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("card", "languages"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# A model\n", ["en"]),
        ("---\nlanguage:\n- multilingual\n- en\n- pt-BR\n- en\n---\n", ["multilingual", "en", "pt-BR"]),
        ("---\nlanguage: [sv, no, da]\n---\n", ["sv", "no", "da"]),
        ("---\nlicense: mit\n---\n", []),
        ("---\nlanguage:\n---\n", []),
        ("---\nlanguage: {en: 1}\n---\n", []),
        ("---\nlanguage: 3\n---\n", []),
        ("---\n- a\n- b\n---\n", []),
        ("---\nlanguage: [en\n---\n", []),
        ("# A model\n\nlanguage: en\n", []),
        ("", []),
    ],
)
def test_the_card_of_a_checkpoint(tmp_path: Path, card: str, languages: list[str]) -> None:
    """The languages of a checkpoint are those in its README's metadata, one or many, and none where it has none."""
    assert stated_languages(write_card(tmp_path, card)) == languages


def test_no_card(tmp_path: Path) -> None:
    """A folder without a README, or with one that is no text, and an engine without a folder list no languages."""
    assert stated_languages(tmp_path) == []
    (tmp_path / "README.md").write_bytes(b"---\nlanguage: \xff\n---\n")
    assert stated_languages(tmp_path) == []
    assert card_languages(PLAIN) == []


@pytest.mark.parametrize("model", ["mini", Path("mini")])
def test_the_name_of_a_model_has_no_card(model: Any) -> None:
    """A name in the place of a model is an error that says what to write, and not a card without languages."""
    for call in (card_languages, lambda name: unlisted_languages(name, ["Der Hund schläft im Garten."])):
        with pytest.raises(InputTypeError, match=r"expected a reranker or an engine, got .*NLIReranker\('mini'\)"):
            call(model)


def test_the_bundled_model_lists_english(bundled: NLIReranker) -> None:
    """The bundled model's manifest lists English, asked of the reranker or of its engine."""
    assert card_languages(bundled) == card_languages(bundled.engine) == ["en"]


def test_a_checkpoints_card_reaches_its_engine(checkpoint: Path, tmp_path: Path) -> None:
    """An engine of a checkpoint folder lists what the folder's README does."""
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    engine = load(write_card(tmp_path, "---\nlanguage: de\n---\n"), engine="torch")
    assert card_languages(engine) == ["de"]


def test_a_manifest_comes_before_the_readme(tmp_path: Path) -> None:
    """Where a manifest names languages the README's are not read, and where it names none they are."""
    card = "---\nlanguage: fr\n---\n"
    (tmp_path / "model.onnx").write_bytes(b"weights")
    for languages, expected in ((["de", "en"], ["de", "en"]), ([], ["fr"])):
        manifest = Manifest("m", "1", languages=languages, files={"model.onnx": "0"})
        manifest.write(tmp_path)
        assert ("- Languages: de, en" in manifest.card().splitlines()) == bool(languages)
        assert stated_languages(write_card(tmp_path, card)) == expected


def test_a_manifest_without_languages_is_read(tmp_path: Path) -> None:
    """A manifest written before there were languages is read, and names none."""
    from rerank_nli.manifest import sha256

    (tmp_path / "model.onnx").write_bytes(b"weights")
    Manifest("m", "1", files={"model.onnx": sha256(tmp_path / "model.onnx")}).write(tmp_path)
    path = tmp_path / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["languages"]
    path.write_text(json.dumps(values), encoding="utf-8")
    manifest = Manifest.read(tmp_path)
    assert manifest is not None
    assert manifest.languages == []


@pytest.mark.parametrize("languages", ["en", None, [1], [""], {"en": 1}])
def test_languages_of_a_manifest_are_a_list(languages: Any) -> None:
    """A manifest whose languages are no list of codes is refused."""
    with pytest.raises(ValueError, match=r"languages=.*expected a list of ISO 639 codes"):
        Manifest("m", "1", languages=languages)


def test_texts_that_the_card_does_not_list(bundled: NLIReranker) -> None:
    """The bundled model's card lists English: every other language is reported by its code, and English is not."""
    pytest.importorskip("py3langid")
    found = unlisted_languages(bundled, TEXTS.values())
    assert [(f.index, f.language) for f in found] == list(enumerate(TEXTS))[1:]
    assert all(0.2 <= f.probability <= 1 for f in found)
    assert json.loads(json.dumps(found[0].to_dict())) == {
        "index": 1,
        "language": "de",
        "probability": found[0].probability,
    }


@pytest.mark.parametrize("left_out", list(TEXTS))
def test_each_language_is_missed_where_it_is_left_out(left_out: str) -> None:
    """Of texts in thirteen languages and a card that lists all but one, that one is reported, and no other."""
    pytest.importorskip("py3langid")
    listed = [code for code in TEXTS if code != left_out]
    assert [f.language for f in unlisted_languages(PLAIN, TEXTS.values(), listed)] == [left_out]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Ja.",
        "Nein danke",
        "12.5 % · 2031-05-07 · +49 30 123456",
        "x = [f(i) for i in range(10)]",
        "https://example.org/a/b?c=1",
        "🙂🙂🙂🙂🙂🙂🙂🙂",
        "\ud800" * 40,
    ],
)
def test_what_is_not_reported(text: str) -> None:
    """Short texts, numbers, code and signs are not reported."""
    pytest.importorskip("py3langid")
    assert unlisted_languages(PLAIN, [text], ["en"]) == []


@pytest.mark.parametrize("listed", [[], ["multilingual"], ["English"], ["code"]])
def test_a_card_that_says_nothing_of_use(listed: list[str]) -> None:
    """Where no language is listed that the identifier knows, nothing is reported."""
    pytest.importorskip("py3langid")
    assert unlisted_languages(PLAIN, TEXTS.values(), listed) == []


@pytest.mark.parametrize("listed", ["de", "DE", "de-AT", "de_CH", " de "])
def test_spellings_of_a_code(listed: str) -> None:
    """A code counts in any case and with any region."""
    pytest.importorskip("py3langid")
    assert unlisted_languages(PLAIN, [TEXTS["de"]], [listed]) == []


def test_forms_of_texts() -> None:
    """Passages in their other forms are read, an equal text is reported each time, and indices are the caller's."""
    pytest.importorskip("py3langid")
    texts = iter([("a", TEXTS["fr"]), {"text": TEXTS["en"]}, TEXTS["fr"]])
    found = unlisted_languages(PLAIN, texts, ["en"])
    assert found == [Foreign(0, "fr", found[0].probability), Foreign(2, "fr", found[0].probability)]


@pytest.mark.parametrize(
    ("texts", "listed", "message"),
    [
        ("a text", ["en"], "texts must be a list"),
        (["a", None], ["en"], "text 1 must be a text"),
        (["a"], "en", "listed must be a list"),
        (["a"], [1], "codes of languages, as 'en', got 1"),
    ],
)
def test_what_has_no_language(texts: Any, listed: Any, message: str) -> None:
    """What is no text and no list of codes is one error."""
    pytest.importorskip("py3langid")
    with pytest.raises(InputTypeError, match=message):
        unlisted_languages(PLAIN, texts, listed)


def test_without_the_extra() -> None:
    """Without py3langid the error is the pip command, and the package imports all the same."""
    program = (
        "import sys; sys.modules['py3langid'] = None\n"
        "import rerank_nli\n"
        "try: rerank_nli.unlisted_languages(rerank_nli.FunctionEngine(len), [])\n"
        "except rerank_nli.MissingExtraError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert said.stdout.strip().endswith("pip install 'rerank-nli[lang]'")


def warned(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds writes to stderr."""
    assert main(arguments) == 0
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "verb", [["rank", "--query"], ["filter", "--query"], ["verify", "--claim"], ["check", "--answer"]]
)
def test_verbs_warn(capsys: pytest.CaptureFixture[str], tmp_path: Path, verb: list[str]) -> None:
    """With --languages each verb writes one line that names the language, the count and what the card lists."""
    pytest.importorskip("py3langid")
    file = tmp_path / "passages.txt"
    file.write_text("\n".join([TEXTS["en"], TEXTS["de"], TEXTS["de"] + "!"]), encoding="utf-8")
    said = warned(capsys, *verb, TEXTS["fr"], str(file), "--languages")
    assert said.count("\n") == 1
    assert said.startswith("rerank-nli: 3 texts are in a language that the card of mini does not list: de 2, fr 1 ")
    assert "(it lists en)" in said
    assert warned(capsys, *verb, TEXTS["fr"], str(file)) == ""
    file.write_text(TEXTS["en"], encoding="utf-8")
    assert warned(capsys, *verb, TEXTS["en"], str(file), "--languages") == ""


def test_records_and_pairs_warn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Records of `rank`, pairs of `predict` and `evaluate`, and passages of `conflicts` are counted likewise."""
    pytest.importorskip("py3langid")
    pytest.importorskip("sklearn")
    records, pairs, passages = tmp_path / "records.jsonl", tmp_path / "pairs.jsonl", tmp_path / "passages.txt"
    record = {"query": TEXTS["en"], "passages": [{"text": TEXTS["es"]}, TEXTS["en"]]}
    records.write_text(f"{json.dumps(record)}\n" * 2, encoding="utf-8")
    pair = {"premise": TEXTS["en"], "hypothesis": TEXTS["es"], "label": "entailment"}
    pairs.write_text(f"{json.dumps(pair)}\n" * 2, encoding="utf-8")
    passages.write_text(f"{TEXTS['en']}\n{TEXTS['es']}\n{TEXTS['es']}", encoding="utf-8")
    for command in (
        ["rank", str(records)],
        ["predict", str(pairs)],
        ["evaluate", "--data", str(pairs), "--resamples", "0"],
        ["conflicts", str(passages)],
    ):
        assert warned(capsys, *command, "--languages").startswith("rerank-nli: 2 texts are in a language"), command


def test_a_card_without_languages_is_said(capsys: pytest.CaptureFixture[str], checkpoint: Path, tmp_path: Path) -> None:
    """Where the card lists no languages, --languages says so, and doctor shows that they are not stated."""
    pytest.importorskip("py3langid")
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"premise": TEXTS["de"], "hypothesis": TEXTS["de"]}), encoding="utf-8")
    said = warned(capsys, "predict", "--model", str(checkpoint), "--engine", "torch", str(file), "--languages")
    assert said == f"rerank-nli: the card of {checkpoint} lists no languages to hold the texts against\n"
    main(["doctor", str(checkpoint), "--engine", "torch"])
    assert ", languages not stated\n" in capsys.readouterr().out
    main(["doctor", "mini"])
    assert ", languages en\n" in capsys.readouterr().out


def rows_of(capsys: pytest.CaptureFixture[str], *files: Path) -> list[list[str]]:
    """The table that `evaluate` prints of files, in cells."""
    assert main(["evaluate", "mini", "--resamples", "0", "--data", *map(str, files)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def write_pairs(file: Path, *rows: dict[str, str]) -> Path:
    """A file of pairs."""
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


SAME = {"premise": "A cat sleeps.", "hypothesis": "A cat sleeps.", "label": "entailment"}
WRONG = {**SAME, "label": "contradiction"}


def test_xnli_gives_a_table_by_language(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Files called xnli_XX stand together with their language, their mean below; other sets have none."""
    pytest.importorskip("sklearn")
    files = [
        write_pairs(tmp_path / "xnli_de.jsonl", SAME, WRONG),
        write_pairs(tmp_path / "other_de.jsonl", SAME),
        write_pairs(tmp_path / "xnli_en.jsonl", SAME, SAME, SAME),
    ]
    rows = rows_of(capsys, *files)
    assert rows[0][:4] == ["set", "language", "rows", "accuracy"]
    assert [row[:4] for row in rows[1:]] == [
        ["xnli", "de", "2", "0.5000"],
        ["xnli", "en", "3", "1.0000"],
        ["xnli", "mean", "5", "0.7500"],
        ["other_de", "-", "1", "1.0000"],
    ]


def test_a_language_column_splits_a_set(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Rows that say their language are measured by language; those that do not stand apart from the mean."""
    pytest.importorskip("sklearn")
    rows = [{**SAME, "language": "fr"}, {**WRONG, "language": "tr"}, SAME, {**SAME, "language": ""}]
    table = rows_of(capsys, write_pairs(tmp_path / "reviews.jsonl", *rows))
    assert [row[:4] for row in table[1:]] == [
        ["reviews", "fr", "1", "1.0000"],
        ["reviews", "tr", "1", "0.0000"],
        ["reviews", "-", "2", "1.0000"],
        ["reviews", "mean", "2", "0.5000"],
    ]


def test_a_table_without_languages_has_no_column(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Where no set says its language the table has neither the column nor a mean."""
    pytest.importorskip("sklearn")
    rows = rows_of(capsys, write_pairs(tmp_path / "a.jsonl", SAME), write_pairs(tmp_path / "b.jsonl", SAME))
    assert [row[0] for row in rows] == ["set", "a", "b"]
    assert "language" not in rows[0]


def test_languages_in_json_and_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--json prints a line for each language and one for the mean, and --plot draws all languages."""
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    files = [write_pairs(tmp_path / f"xnli_{code}.jsonl", SAME, WRONG) for code in ("de", "fr")]
    plot = tmp_path / "plot.svg"
    arguments = ["--resamples", "0", "--json", "--plot", str(plot), "--data", *map(str, files)]
    assert main(["evaluate", "mini", *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["set"], row["language"], row["rows"]) for row in rows] == [
        ("xnli", "de", 2),
        ("xnli", "fr", 2),
        ("xnli", "mean", 4),
    ]
    assert rows[2]["accuracy"] == (rows[0]["accuracy"] + rows[1]["accuracy"]) / 2
    assert plot.stat().st_size > 1000


def test_the_language_column_in_csv_and_parquet(tmp_path: Path) -> None:
    """A language is read from every form of file, and an empty cell is none."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame([{**SAME, "language": "de"}, {**SAME, "language": None}])
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    frame.to_parquet(tmp_path / "pairs.parquet")
    for name in ("pairs.csv", "pairs.parquet"):
        assert [pair.language for pair in read_pairs(tmp_path / name)] == ["de", None]


def overlap(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Entailment where the premise holds the hypothesis, contradiction where it holds it backwards."""
    return [[9.0 * (h in p), 1.0, 9.0 * (h not in p and h[::-1] in p)] for p, h in pairs]


@pytest.mark.parametrize("premise", list(TEXTS))
@pytest.mark.parametrize("hypothesis", ["en", "ar", "zh", "hi"])
def test_pairs_of_two_languages(premise: str, hypothesis: str) -> None:
    """The model is shown both texts as they are, whatever their languages, and its row comes back."""
    shown: list[tuple[str, str]] = []

    def note(pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        shown.extend(pairs)
        return overlap(pairs)

    pair = (TEXTS[premise], TEXTS[hypothesis])
    array = NLIReranker(FunctionEngine(note)).predict([pair])
    assert shown == [pair]
    assert (array[0].argmax() == 0) == (premise == hypothesis)


@pytest.mark.parametrize("code", list(TEXTS))
def test_spans_in_every_script(code: str) -> None:
    """In a long passage of many scripts the span of the evidence is the sentence in its own script."""
    passage = "\n\n".join(TEXTS.values())
    reranker = NLIReranker(FunctionEngine(overlap), window=50)
    best = reranker.rank(TEXTS[code], [passage])[0]
    a, b = best.span
    assert TEXTS[code] in passage[a:b]
    assert best.windows > 1


MARKS = ["e\u0301tude", "ก็", "नदी", "שָׁלוֹם", "👩\u200d🚀", "\u202bעברית\u202c", "ﷺ", "한국", "𝒳", "İstanbul"]


@given(st.lists(st.sampled_from([*MARKS, " ", ". ", "。", "\n"]), min_size=1, max_size=40))
def test_spans_hold_whole_texts_of_any_script(bundled: NLIReranker, parts: list[str]) -> None:
    """Combining marks, joined emoji, right-to-left marks and letters that change length in lower case keep offsets."""
    text = "".join(parts)
    for engine in (FunctionEngine(overlap), bundled.engine):
        (tokens,) = engine.tokenize([text])
        assert all(0 <= a <= b <= len(text) for a, b in tokens.spans.tolist())
    (passage,) = NLIReranker(FunctionEngine(overlap), window=8).rank("x", [text])
    assert 0 <= passage.span.start <= passage.span.end <= len(text)


def test_a_checkpoint_takes_pairs_of_two_languages(checkpoint: Path) -> None:
    """A checkpoint scores each pair of languages alone as among the others, and spans lie in their passage."""
    pytest.importorskip("torch")
    reranker = NLIReranker(load(checkpoint, engine="torch"), window=32)
    texts = list(TEXTS.values())
    pairs = list(zip(texts, texts[1:] + texts[:1], strict=True))
    together = reranker.predict(pairs)
    alone = np.concatenate([reranker.predict([pair]) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    for passage in reranker.rank(TEXTS["en"], texts):
        assert passage.evidence == passage.text[passage.span.start : passage.span.end] != ""
