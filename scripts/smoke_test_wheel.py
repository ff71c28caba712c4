"""Build the wheels, install the core's alone in a bare environment and rank with it, then add those of the adapters.

What an adapter must do there is its six lines in the README. Run: python scripts/smoke_test_wheel.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT_MB = 45  # of the wheel: the bundled models are most of it
ADAPTERS = {
    "haystack": "haystack_integrations.components.rankers.rerank_nli",
    "langchain": "langchain_rerank_nli",
    "llama_index": "llama_index.postprocessor.rerank_nli",
    "ray": "rerank_nli_ray",
}
PROGRAM = """
import sys
from importlib.util import find_spec
from rerank_nli import NLIReranker
assert find_spec("torch") is None and find_spec("faiss") is None
passages = ["Nobody is asleep.", "A tabby cat is asleep on the mat.", "The museum opened in 1968."]
ranking = NLIReranker().rank("A cat is sleeping.", passages)
assert [ranking[0].index, ranking[0].score > 0.5] == [1, True], ranking
assert NLIReranker().verify("A cat is sleeping.", passages[1:]).label == "supported"
"""


LIGHT = """
from importlib.util import find_spec
assert find_spec("torch") is None and find_spec("transformers") is None
"""


def run(*command: str | Path) -> None:
    environment = {**os.environ, "HAYSTACK_TELEMETRY_ENABLED": "False"}
    subprocess.run([str(part) for part in command], check=True, env=environment)  # noqa: S603


def build(source: Path, folder: Path) -> Path:
    out = Path(tempfile.mkdtemp(dir=folder))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source)
    (wheel,) = out.glob("*.whl")
    return wheel


def shown(module: str) -> str:
    """The README's one block of code that imports from a module."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    (code,) = (block for block in blocks if f"from {module} import" in block)
    return str(code)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = build(ROOT, folder)
        size = wheel.stat().st_size / 1e6
        if size > LIMIT_MB:
            message = f"{wheel.name} has {size:.1f} MB, more than {LIMIT_MB}"
            raise SystemExit(message)
        venv.create(folder / "bare", with_pip=True)
        programs = folder / "bare" / ("Scripts" if os.name == "nt" else "bin")
        python = programs / "python"
        install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*install, wheel)
        run(python, "-I", "-c", PROGRAM)
        run(programs / "rerank-nli", "doctor", "mini")
        files = [file for file in (folder / "bare").rglob("*") if file.is_file() and not file.is_symlink()]
        ours = [file for file in files if not {"pip", "setuptools"} & {part.split("-")[0] for part in file.parts}]
        installed = sum(file.stat().st_size for file in ours) / 1e6
        print(f"{wheel.name}: {size:.1f} MB; installed with its dependencies: {installed:.0f} MB")
        adapters = [build(ROOT / "integrations" / name, folder) for name in ADAPTERS]
        run(*install, "--constraint", ROOT / "constraints-dev.txt", *adapters)
        for module in ADAPTERS.values():
            run(python, "-I", "-c", shown(module) + LIGHT)
        print(*(adapter.name for adapter in adapters), sep="\n")


if __name__ == "__main__":
    main()
