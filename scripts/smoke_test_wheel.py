"""Build the wheel, install it without extras in an environment of its own, and rank with it there.

Run: python scripts/smoke_test_wheel.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT_MB = 45  # of the wheel: the bundled models are most of it
PROGRAM = """
import sys
from importlib.util import find_spec
from rerank_nli import NLIReranker
assert find_spec("torch") is None and find_spec("faiss") is None
passages = ["Nobody is asleep.", "A tabby cat is asleep on the mat.", "The mat is blue."]
ranking = NLIReranker().rank("A cat is sleeping.", passages)
assert [ranking[0].index, ranking[0].score > 0.5] == [1, True], ranking
assert NLIReranker().verify("A cat is sleeping.", passages[1:]).label == "supported"
"""


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)  # noqa: S603


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        size = wheel.stat().st_size / 1e6
        if size > LIMIT_MB:
            message = f"{wheel.name} has {size:.1f} MB, more than {LIMIT_MB}"
            raise SystemExit(message)
        venv.create(folder / "bare", with_pip=True)
        programs = folder / "bare" / ("Scripts" if os.name == "nt" else "bin")
        python = programs / "python"
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
        run(python, "-I", "-c", PROGRAM)
        run(programs / "rerank-nli", "doctor", "mini")
        files = [file for file in (folder / "bare").rglob("*") if file.is_file() and not file.is_symlink()]
        ours = [file for file in files if not {"pip", "setuptools"} & {part.split("-")[0] for part in file.parts}]
        installed = sum(file.stat().st_size for file in ours) / 1e6
        print(f"{wheel.name}: {size:.1f} MB; installed with its dependencies: {installed:.0f} MB")


if __name__ == "__main__":
    main()
