"""Is a text reported whose language the card lists, and one whose language it does not?

Run: python benchmarks/languages.py --data DIR. DIR has nli/xnli_XX.jsonl.gz and the English sets of nli/ named below. A
text is a distinct premise or hypothesis. The constants of rerank_nli/languages.py were chosen on every sixth text of
the English sets ("chosen on"), with a look at XNLI; "held out" are the others. Each language of XNLI is held against a
card that lists English only, and against one that lists all of them. About a tenth of the Hindi and Urdu rows is not in
those languages' script.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rerank_nli import FunctionEngine, unlisted_languages

RESULT = Path(__file__).parent / "results" / "languages.json"
ENGLISH = ("mnli_dev_matched", "snli_dev", "qnli_dev", "anli_dev", "healthver_dev")
ENGINE = FunctionEngine(lambda pairs: [[0.0, 0.0, 0.0] for _ in pairs])  # it has no card: `listed` is given


def texts(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return sorted({row[side] for row in rows for side in ("premise", "hypothesis")})


def reported(found: list[str], listed: list[str]) -> tuple[int, Counter[str]]:
    """How many texts are reported, and as what."""
    languages = Counter(foreign.language for foreign in unlisted_languages(ENGINE, found, listed))
    return languages.total(), languages


def english(found: list[str]) -> dict[str, Any]:
    sixth = found[::6]
    rest = [text for index, text in enumerate(found) if index % 6]
    (chosen, _), (held_out, languages) = reported(sixth, ["en"]), reported(rest, ["en"])
    return {
        "chosen on": len(sixth),
        "reported of them": chosen,
        "held out": len(rest),
        "reported of those": held_out,
        "as": dict(languages.most_common(3)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with nli/")
    folder = parser.parse_args().data / "nli"
    files = {path.name[5:7]: path for path in sorted(folder.glob("xnli_*.jsonl.gz"))}
    if not files or not all((folder / f"{name}.jsonl.gz").is_file() for name in ENGLISH):
        parser.error(f"{folder} must hold xnli_XX.jsonl.gz and {', '.join(ENGLISH)}")
    false = {name: english(texts(folder / f"{name}.jsonl.gz")) for name in ENGLISH}
    started, count = time.perf_counter(), 0
    xnli = {}
    for code, path in files.items():
        found = texts(path)
        count += 2 * len(found)
        total, languages = reported(found, ["en"])
        xnli[code] = {
            "texts": len(found),
            "reported, card en": round(total / len(found), 4),
            "reported by its name": round(languages[code] / len(found), 4),
            "reported, card of all": round(reported(found, list(files))[0] / len(found), 4),
        }
    result = {
        "identifier": f"py3langid {importlib.metadata.version('py3langid')}",
        "ms a text": round(1000 * (time.perf_counter() - started) / count, 3),
        "English": false,
        "XNLI": xnli,
    }
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, row in {**false, **xnli}.items():
        print(f"{name:20s} {row}")


if __name__ == "__main__":
    main()
