"""The page at / in a real Chromium: it shows what the library says, to anybody, and asks nobody but its server."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from bounds import INT8
from serving import PATIENCE, Served, held, served, until

from rerank_nli import FunctionEngine, NLIReranker, load
from rerank_nli.server_limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")

ROWS = """id => [...document.querySelectorAll(`#${id} > li`)].map(row => ({
  place: row.querySelector("b").textContent,
  was: Number(row.querySelector(".place .quiet").textContent.match(/[0-9]+/)[0]),
  text: row.querySelector(".text").textContent,
  numbers: [...row.querySelectorAll(".numbers li")].map(one => one.textContent),
  widths: [...row.querySelectorAll(".bar i")].map(one => Number(one.style.flexGrow)),
  marks: [...row.querySelectorAll("mark")].map(one => [one.className, one.textContent]),
  why: row.querySelector(".why")?.textContent,
}))"""
# Of every text that is seen: its contrast to the nearest ground that is painted, by the formula of WCAG.
CONTRASTS = """() => {
  const channels = colour => colour.match(/[0-9.]+/g).map(Number);
  const light = colour => channels(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const painted = element => !element ? "rgb(255, 255, 255)"
    : channels(getComputedStyle(element).backgroundColor)[3] === 0 ? painted(element.parentElement)
    : getComputedStyle(element).backgroundColor;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(painted(element))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), texts.currentNode.data.trim()]);
  }
  return found;
}"""


def by_rule(pairs: list[tuple[str, str]]) -> list[list[float]]:
    """Logits: a passage with "yes" entails, with "may" a little, and with "no" contradicts, whatever is asked."""
    return [[4.0 * ("yes" in premise) + ("may" in premise), 1.0, 4.0 * ("no" in premise)] for premise, _ in pairs]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """The bundled model, and one that goes by a rule."""
    with served({"mini": load(), "rules": FunctionEngine(by_rule)}, limits=Limits(passages=600)) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests here."""
    sync_api.expect.set_options(timeout=PATIENCE * 1000)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, server: Served, **options: Any) -> Iterator[Page]:
    """The page as it is once the example is judged; it may fail nowhere and ask no other server."""
    failures: list[Any] = []
    asked: list[str] = []
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(error))  # noqa: PLW0108 - a method is not taken
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        yield page
    assert failures == []
    assert asked
    assert [url for url in asked if not url.startswith((f"{server.url}/", "data:"))] == []


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    """The page, the example judged."""
    with opened(browser, server) as page:
        settle(page)
        yield page


def settle(page: Page) -> None:
    """Wait until the page shows the answer to what its controls say."""
    page.locator('#answered[aria-busy="false"]').wait_for(timeout=PATIENCE * 1000)


def ask(page: Page, query: str, passages: list[str], **settings: str) -> None:
    """Type what is asked, choose the settings, and wait for the answer."""
    page.get_by_label("Query or claim").fill(query)
    page.get_by_label("Passages", exact=True).fill("\n".join(passages))
    choose(page, **settings)


def choose(page: Page, **settings: str) -> None:
    """Choose settings by the names of their controls, and wait for the answer."""
    for name, value in settings.items():
        page.locator(f"#{name}").select_option(value)
    settle(page)


def rows(page: Page, which: str = "kept") -> list[dict[str, Any]]:
    """What is shown of each passage that was kept, or dropped."""
    shown: list[dict[str, Any]] = page.evaluate(ROWS, which)
    return shown


def places(page: Page, which: str = "kept") -> list[int]:
    """Where the passages were, in the order in which they are shown."""
    return [row["was"] - 1 for row in rows(page, which)]


def example(page: Page) -> tuple[str, list[str]]:
    """What the page asks by itself."""
    passages = page.get_by_label("Passages", exact=True).input_value().split("\n")
    return page.get_by_label("Query or claim").input_value(), passages


def give(page: Page, name: str, content: str | bytes) -> None:
    """Choose a file."""
    content = content.encode() if isinstance(content, str) else content
    file: Any = {"name": name, "mimeType": "text/plain", "buffer": content}
    page.get_by_label("Or drop a file here").set_input_files(file)


def test_first_screen(page: Page, bundled: NLIReranker) -> None:
    """At first one sees what the model is for: what supports a claim first, what contradicts it dropped, a verdict."""
    query, passages = example(page)
    filtered, verdict = bundled.filter(query, passages), bundled.verify(query, passages)
    assert places(page) == [p.index for p in filtered.kept]
    assert rows(page)[0]["marks"] == [["supports", verdict.supporting[0].evidence]]
    against = [row for row in rows(page, "dropped") if row["why"].startswith("Contradicts it: ")]
    assert [row["was"] for row in against] == [1]
    assert against[0]["marks"] == [["contradicts", passages[0]]]
    assert page.get_by_role("heading", name="Supported").is_visible()
    assert page.get_by_role("status").inner_text() == "2 kept, 3 filtered out. The claim is supported."
    assert page.get_by_label("Passages", exact=True).bounding_box() is not None


@pytest.mark.parametrize(
    ("settings", "threshold"),
    [
        ({}, 0.5),
        ({"direction": "query_entails_passage"}, 0.5),
        ({"direction": "bidirectional", "score": "margin"}, 0.0),
        ({"score": "entailment_vs_contradiction", "keep": "evidence"}, 0.5),
        ({"score": "logit"}, 0.0),
        ({"score": "margin", "keep": "contradiction"}, 0.5),
    ],
)
def test_order(page: Page, settings: dict[str, str], threshold: float) -> None:
    """Under each setting the passages stand in the library's order with its numbers, and say where they were."""
    query, passages = example(page)
    choose(page, **settings)
    keep = settings.pop("keep", "entailment")
    filtered = NLIReranker(**settings).filter(query, passages, threshold, keep)  # type: ignore[arg-type]
    for which, ranking in (("kept", filtered.kept), ("dropped", filtered.dropped)):
        shown = rows(page, which)
        assert [row["was"] - 1 for row in shown] == [p.index for p in ranking]
        assert [row["text"] for row in shown] == [p.text for p in ranking]
        for place, (row, p) in enumerate(zip(shown, ranking, strict=True), 1):
            assert row["place"] == (str(place) if which == "kept" else "–")
            assert row["widths"] == pytest.approx([p.entailment, p.neutral, p.contradiction], abs=INT8.most)
            assert [one.split()[0] for one in row["numbers"]] == ["entailment", "neutral", "contradiction", "score"]
            numbers = [float(one.split()[1].replace("−", "-")) for one in row["numbers"]]
            expected = [p.entailment, p.neutral, p.contradiction, p.score]
            assert numbers == pytest.approx(
                expected, abs=0.005 + (5 if "logit" in settings.values() else 2) * INT8.most
            )


def test_at_once(page: Page) -> None:
    """A threshold that moves, or a filter that is switched off, moves passages without anything else being pressed."""
    ask(page, "q", ["yes", "no", "so"], model="rules")
    assert places(page) == [0]
    page.get_by_role("slider", name="Threshold").fill("0")
    settle(page)
    assert places(page) == [0, 2, 1]
    page.get_by_role("slider", name="Threshold").fill("1")
    settle(page)
    assert (places(page), places(page, "dropped")) == ([], [0, 2, 1])
    page.get_by_role("checkbox", name="Filter").uncheck()
    settle(page)
    assert places(page) == [0, 2, 1]
    assert page.get_by_role("heading", name="3 passages, in order").is_visible()
    assert not page.locator("#dropped-section").is_visible()
    assert page.get_by_role("slider", name="Threshold").is_disabled()


def test_spans(page: Page, bundled: NLIReranker) -> None:
    """What is marked are the library's own spans, also after characters that UTF-16 has in two parts."""
    query, passages = example(page)
    passages = [f"🏖️ Hello 👩‍👩‍👧 𝒳! {passage} 🦮 Bye." for passage in passages]
    ask(page, query, passages)
    verdict = bundled.verify(query, passages)
    expected: dict[int, list[str | None]] = {p.index: ["supports", p.evidence] for p in verdict.supporting}
    expected |= {p.index: ["contradicts", p.refuting_evidence] for p in verdict.refuting if p.index not in expected}
    assert len(expected) >= 2
    shown = [row for which in ("kept", "dropped") for row in rows(page, which)]
    assert {row["was"] - 1: row["marks"][0] for row in shown if row["marks"]} == expected
    assert {row["was"] - 1: row["text"] for row in shown} == dict(enumerate(passages))


def test_windows(page: Page) -> None:
    """Of a passage of several windows that settles nothing, the window is marked that won the score."""
    sentences = [f"🌊 The tide table of day {day} lists two high waters." for day in range(200)]
    sentences[150] = "This may do."
    long = " ".join(sentences)
    ask(page, "q", [long], model="rules")
    (p,) = NLIReranker(FunctionEngine(by_rule)).rank("q", [long])
    assert p.windows > 1
    assert p.evidence in long[1000:]
    (row,) = rows(page, "dropped")
    assert row["marks"] == [["read", p.evidence]]


@pytest.mark.parametrize(
    ("passages", "heading", "why"),
    [
        (["so", "yes", "yes!"], "✓ Supported", "Passages 2 and 3 support it. By"),
        (["no", "so"], "✕ Refuted", "Passage 1 contradicts it. By"),
        (["yes", "no"], "✓ Supported", "Passage 1 supports it. Passage 2 contradicts it. By"),
        (["so", "and so"], "? Not settled", "By"),
        (["yes"] * 7, "✓ Supported", "Passages 1, 2, 3, 4, 5 and 2 more support it. By"),
    ],
)
def test_verdict(page: Page, passages: list[str], heading: str, why: str) -> None:
    """The verdict is the library's, with the passages that it rests on."""
    ask(page, "q", passages, model="rules")
    verdict = NLIReranker(FunctionEngine(by_rule)).verify("q", passages)
    shown = f"{heading} {verdict.confidence:.2f}"
    assert page.locator("#verdict-label").inner_text() == shown
    assert page.locator("#verdict-why").inner_text().startswith(why)


def test_filtered_out(page: Page) -> None:
    """Of each passage that was filtered out is said what the model makes of it, and which number was too low."""
    ask(page, "q", ["no", "so", "yes no"], model="rules")
    assert [row["why"] for row in rows(page, "dropped")] == [
        "Entails it, though not clearly enough: score 0.49 is below 0.50",
        "Neither supports nor contradicts it: score 0.21 is below 0.50",
        "Contradicts it: score 0.02 is below 0.50",
    ]
    choose(page, keep="evidence")
    assert [row["why"] for row in rows(page, "dropped")] == [
        "Entails it, though not clearly enough: neither score 0.49 nor contradiction 0.49 reaches 0.50",
        "Neither supports nor contradicts it: neither score 0.21 nor contradiction 0.21 reaches 0.50",
    ]
    choose(page, keep="contradiction")
    assert [row["why"] for row in rows(page, "dropped")][-1] == (
        "Neither supports nor contradicts it: contradiction 0.21 is below 0.50"
    )


@pytest.mark.parametrize(
    ("name", "content", "split", "expected"),
    [
        ("a.txt", "yes one\r\n\r\n so two \nno three", "line", ["yes one", "so two", "no three"]),
        ("a.TXT", "yes one\nmore\n \nso two\n\n\nno", "block", ["yes one\nmore", "so two", "no"]),
        ("a.jsonl", '\ufeff{"text": "yes\\none", "id": 7}\n\n"so 🦮"\n', "line", ["yes\none", "so 🦮"]),
        ("a.csv", 'id,text\n1,"yes, ""one""\nmore"\n2,so\n', "line", ['yes, "one"\nmore', "so"]),
        ("a.csv", '"text"\r\n""\r\nso\r\n', "line", ["so"]),
    ],
)
def test_files(page: Page, name: str, content: str, split: str, expected: list[str]) -> None:
    """A file that is chosen takes the place of what was typed: its lines or paragraphs, or each row's text."""
    choose(page, model="rules", split=split)
    give(page, name, content)
    sync_api.expect(page.get_by_role("heading", name=f"{name}: {len(expected)} passage")).to_be_visible()
    settle(page)
    shown = [row for which in ("kept", "dropped") for row in rows(page, which)]
    assert [row["text"] for row in sorted(shown, key=lambda row: row["was"])] == expected
    page.get_by_role("button", name="Type instead").click()
    choose(page, split="line")
    assert len(rows(page)) + len(rows(page, "dropped")) == 5


def test_drop(page: Page) -> None:
    """A file may be dropped anywhere on the page, and a .txt is read anew when the split changes."""
    choose(page, model="rules")
    page.evaluate("""() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["yes\\nyes\\n\\nyes"], "dropped.txt"));
      document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
    }""")
    sync_api.expect(page.get_by_role("heading", name="dropped.txt: 3 passages")).to_be_visible()
    settle(page)
    assert places(page) == [0, 1, 2]
    choose(page, split="block")
    assert [row["text"] for row in rows(page)] == ["yes\nyes", "yes"]
    assert page.get_by_role("heading", name="dropped.txt: 2 passages").is_visible()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", "", "a.pdf: expected a file that ends in .txt, .jsonl, .csv"),
        ("a.txt", b"\xff\xfe\x00", "a.txt is no text in UTF-8: save it in that encoding"),
        ("a.jsonl", '"so"\n{"text": ', "a.jsonl, line 2: no JSON"),
        ("a.jsonl", '{"body": "so"}', 'a.jsonl, line 1: expected a text, or an object with "text"'),
        ("a.csv", "id,body\n1,so", "a.csv: expected a column called “text”, found “id”, “body”"),
        ("a.csv", "id,text\n1,so,no", "a.csv, row 2: 3 cells, but the header names 2"),
        ("a.csv", 'text\n"so', "a.csv, row 2: a quote that is not closed or not doubled"),
    ],
)
def test_bad_files(page: Page, name: str, content: str | bytes, message: str) -> None:
    """A file that cannot be read is said to be so, where and why, and what was shown stays."""
    before = places(page)
    give(page, name, content)
    sync_api.expect(page.get_by_role("alert")).to_have_text(message)
    assert places(page) == before


HOSTILE = [
    "<img src=x onerror=\"document.title='taken'\"> <script>document.title='taken'</script>",
    'It\'s "quoted" `id` $(id) $HOME \\n \\ %s !! {x} \u2028 \u202e JSON',
    "JSON",
    "' ; echo taken ; '",
    '""" + str(1) # 🦮',
]


def test_hostile_texts(page: Page) -> None:
    """A text that looks like a page's code is shown as the text that it is, wherever it appears."""
    ask(page, HOSTILE[0], [f"yes {text}" for text in HOSTILE], model="rules")
    assert [row["text"] for row in rows(page)] == [f"yes {text}" for text in HOSTILE]
    give(page, "<img src=x onerror=1>.txt", HOSTILE[0])
    sync_api.expect(page.get_by_role("heading", name="<img src=x onerror=1>.txt: 1 passage")).to_be_visible()
    settle(page)
    assert page.locator("img, main script").count() == 0
    assert page.title() == "rerank-nli playground"


def test_policy(page: Page) -> None:
    """The page's policy forbids requests to others, and HTML that is made of texts."""
    outside = "fetch('http://127.0.0.2:9/').then(() => 'sent', error => error.name)"
    blocked = f"""new Promise(done => {{
      document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective), {{once: true}});
      {outside};
    }})"""
    page.context.on("request", lambda _: pytest.fail("a request was sent"))
    assert page.evaluate(blocked) == "connect-src"
    with pytest.raises(sync_api.Error, match="TrustedHTML"):
        page.evaluate("document.body.innerHTML = '<b>text</b>'")


@pytest.mark.parametrize("model", ["mini", "rules"])
def test_curl(page: Page, server: Served, tmp_path: Path, model: str) -> None:
    """What is copied for a shell runs there, and gives the order that is shown."""
    curl = shutil.which("curl")
    bash = shutil.which("bash")
    if not (curl and bash):
        pytest.skip("there is no curl or no bash here")
    ask(page, "It's so, isn't it?", [f"yes {text}" for text in HOSTILE], model=model)
    page.get_by_role("slider", name="Threshold").fill("0.03")
    settle(page)
    command = copied(page, server, "Copy curl")
    done = subprocess.run([bash, "-c", command], capture_output=True, check=True, cwd=tmp_path, timeout=30)
    answer = json.loads(done.stdout)
    assert [result["index"] for result in answer["results"]] == places(page)
    assert [result["index"] for result in answer["dropped"]] == places(page, "dropped")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings", [{}, {"direction": "query_entails_passage", "score": "margin", "keep": "contradiction"}]
)
def test_python(page: Page, server: Served, capsys: pytest.CaptureFixture[str], settings: dict[str, str]) -> None:
    """What is copied for Python runs there, and gives the texts, the order and the verdict that are shown."""
    query, passages = example(page)
    ask(page, query, [*passages, *HOSTILE], **settings)
    names: dict[str, Any] = {}
    exec(copied(page, server, "Copy Python"), names)  # noqa: S102
    assert names["passages"] == [*passages, *HOSTILE]
    assert [p.index for p in names["filtered"].kept] == places(page)
    assert [p.index for p in names["filtered"].dropped] == places(page, "dropped")
    label = capsys.readouterr().out.splitlines()[-1]
    assert label in page.get_by_role("status").inner_text()


def test_python_of_another_model(page: Page) -> None:
    """For a model that only the server knows by its name, the program says what to put in the name's place."""
    choose(page, model="rules")
    shown = page.get_by_role("region", name="The request as Python").inner_text()
    assert 'put the model\'s folder or Hub id in its place\nreranker = NLIReranker("rules", ' in shown


def copied(page: Page, server: Served, button: str) -> str:
    """What a button puts into the clipboard."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    page.get_by_role("button", name=button).click()
    sync_api.expect(page.get_by_role("button", name="Copied")).to_be_visible()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_keyboard(page: Page) -> None:
    """All can be reached and used by keys alone, in the order of the page, and where one is can be seen."""
    seen = []
    page.evaluate("document.activeElement.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        at = page.evaluate("[document.activeElement.id || document.activeElement.textContent, "
                           "getComputedStyle(document.activeElement).outlineStyle]")  # fmt: skip
        seen.append(at)
    names = [name for name, _ in seen]
    controls = ["query", "split", "passages", "file", "model", "direction", "score", "keep", "filter", "threshold"]
    assert [name for name in names if name in controls] == controls
    assert {"Copy curl", "Copy Python", "curl", "python"} < set(names)
    assert [name for name, style in seen if style != "solid"] == []
    page.get_by_role("slider", name="Threshold").focus()
    page.keyboard.press("End")
    settle(page)
    assert places(page) == []
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    settle(page)
    assert len(places(page)) == 5


def test_names(page: Page) -> None:
    """Everything that can be used has a role and a name, and what changes is announced."""
    for role, name in [
        ("textbox", "Query or claim"),
        ("textbox", "Passages"),
        ("combobox", "one for each"),
        ("combobox", "Model"),
        ("combobox", "Direction"),
        ("combobox", "Score"),
        ("combobox", "Keep"),
        ("checkbox", "Filter at"),
        ("slider", "Threshold"),
        ("button", "Copy curl"),
        ("button", "Copy Python"),
        ("region", "What the model says"),
        ("heading", "Filtered out: 3"),
    ]:
        role_of: Any = role
        assert page.get_by_role(role_of, name=name).count() == 1, name
    assert page.get_by_role("status").count() == 1
    lists = page.get_by_role("list").filter(has=page.get_by_role("listitem"))
    assert lists.count() == 2 + 5  # kept, dropped, and the numbers of each passage
    unnamed = "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length && !e.ariaLabel)"
    assert page.evaluate(f"{unnamed}.length") == 0
    assert "evidence: In summer" in page.locator("#kept").aria_snapshot()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Browser, server: Served, scheme: Any) -> None:
    """Every text has a contrast of at least 4.5 to its ground, in light and in dark."""
    with opened(browser, server, color_scheme=scheme) as page:
        settle(page)
        give(page, "a.pdf", "")
        sync_api.expect(page.get_by_role("alert")).to_be_visible()
        page.evaluate("document.getElementById('token-form').hidden = false")
        contrasts = page.evaluate(CONTRASTS)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert len(contrasts) > 50
    assert [found for found in contrasts if found[0] < 4.5] == []


def test_phone(browser: Browser, server: Served) -> None:
    """On a screen of 360 pixels nothing has to be moved sideways, not even for a word that is longer than that."""
    with opened(browser, server, viewport={"width": 360, "height": 740}) as page:
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        ask(page, "q" * 300, ["yes" * 200, "no" * 200], model="rules")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        outside = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 361"
        assert page.evaluate(f"{outside} && !e.closest('pre')).length") == 0


def test_many(page: Page) -> None:
    """The first 500 passages are shown at once, the others at a button; what is too much for the server is said."""
    texts = [f"yes number {i}" for i in range(601)]
    ask(page, "q", texts[:510], model="rules")
    assert places(page) == list(range(500))
    more = page.locator("#more-kept")
    assert more.inner_text() == "Show 10 more passages"
    more.press("Enter")  # rows get their heights as they come into view, and a button that moves is missed by a pointer
    assert places(page) == list(range(510))
    assert page.evaluate("document.activeElement.id") == "passage-501"
    page.get_by_label("Passages", exact=True).fill("\n".join(texts))
    page.locator("#problem").wait_for()
    assert page.locator("#problem").inner_text().startswith("601 documents are more than the 600 of a request")
    assert not page.locator("#results").is_visible()


def test_errors(page: Page) -> None:
    """What the server refuses, and that it is gone, is said in words; the next answer takes their place."""
    choose(page, score="margin", keep="evidence")
    alert = page.get_by_role("alert")
    sync_api.expect(alert).to_contain_text("keep='evidence' compares the score with P(contradiction)")
    page.context.set_offline(True)
    choose(page, score="entailment")
    sync_api.expect(alert).to_have_text("The server cannot be reached. Is it still running?")
    page.context.set_offline(False)
    choose(page, keep="entailment")
    assert not alert.is_visible()
    assert len(rows(page)) == 2
    ask(page, "", ["yes"])
    assert page.get_by_role("status").inner_text() == "Give a query or a claim."
    ask(page, "q", [" "])
    assert page.get_by_role("status").inner_text() == "Give at least one passage."
    assert not page.locator("#results").is_visible()


def test_two_labels(browser: Browser) -> None:
    """A model of two labels ranks, with two numbers for each passage, and why it gives no verdict is said."""
    engine = FunctionEngine(lambda pairs: [[1.0, 0.0]] * len(pairs), labels=["entailment", "not_entailment"])
    with served({"two": engine}) as server, opened(browser, server) as page:
        settle(page)
        assert [one.split()[0] for one in rows(page)[0]["numbers"]] == ["entailment", "score"]
        assert sum(rows(page)[0]["widths"]) == pytest.approx(1)
        assert page.get_by_role("heading", name="No verdict").is_visible()
        assert "contradiction" in page.locator("#verdict-why").inner_text()


def test_the_newest_counts(browser: Browser) -> None:
    """A request that is overtaken by a newer one is given up, and its answer is not shown."""
    with held() as (function, server), opened(browser, server) as page:
        until(lambda: function.begun)
        page.get_by_label("Passages", exact=True).fill("one two\none two three")
        until(lambda: server.metric("requests_total", status="499"))
        function.open.set()
        settle(page)
        assert [row["text"] for row in rows(page)] == ["one two three", "one two"]


def test_token(browser: Browser) -> None:
    """The browser's own form opens the page; where its token is taken no more, the page asks for one and keeps it."""
    credentials: Any = {"username": "any", "password": "sesame"}
    with served(
        {"rules": FunctionEngine(by_rule)}, {"Authorization": "Bearer sesame"}, limits=Limits(keys=("sesame",))
    ) as server:
        assert httpx.get(server.url).status_code == 401
        with opened(browser, server, http_credentials=credentials) as page:
            settle(page)
            assert len(rows(page, "dropped")) == 5
            field, form = page.get_by_label("Token of this server"), page.locator("#token-form")
            assert not form.is_visible()
            server.gate.limits = replace(server.gate.limits, keys=("sesame-two",))
            page.get_by_label("Query or claim").fill("other")
            sync_api.expect(form).to_be_visible()
            assert page.get_by_role("status").inner_text() == "This server asks for a token."
            assert "Bearer $RERANK_NLI_TOKEN" in page.locator("#curl").inner_text()
            field.fill("wrong")
            field.press("Enter")
            sync_api.expect(page.get_by_role("alert")).to_have_text("The server does not take this token.")
            field.fill("sesame-two")
            page.get_by_role("button", name="Use it").click()
            settle(page)
            sync_api.expect(form).not_to_be_visible()
            assert len(rows(page, "dropped")) == 5
            assert "Bearer $RERANK_NLI_TOKEN" in page.locator("#curl").inner_text()
            assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
            assert "sesame" not in page.content()
