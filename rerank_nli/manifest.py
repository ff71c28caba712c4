"""What a bundle is made of: manifest.json, written at export and held against the files at load."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from rerank_nli.errors import DamagedModelError, InputError, counted, is_number

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NAME", "Manifest", "sha256", "stated_languages"]

NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        name, version: of the model; new weights are a new version.
        base: {"model", "licence"} that it was made from.
        data: [{"name", "licence"}] that it was trained on.
        training: {setting: value} of the run that made it.
        scores: measured quality, {set: figure}.
        labels: names of the outputs, in order; empty for a model that does not classify.
        languages: ISO 639 codes of the languages that the model was made for; empty where nobody said.
        max_length: most tokens of a pair, special tokens included.
        window: tokens of a passage that the model judges best at once; None is as many as it takes.
        temperature: what logits are divided by.
        precision: how the weights are stored.
        files: sha256 of each file, by name.
    """

    name: str
    version: str
    base: dict[str, str] = field(default_factory=dict)
    data: list[dict[str, str]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    max_length: int = 512
    window: int | None = None
    temperature: float = 1.0
    precision: str = "fp32"
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers that would score silently and wrongly, and what a card could not say.

        Raises:
            InputError: max_length or window is no count, temperature no positive number, languages no list of codes,
                or an entry of another form.
        """
        counted("max_length", self.max_length)
        if self.window is not None:
            counted("window", self.window, most=self.max_length)
        if not isinstance(self.temperature, int | float) or not is_number(self.temperature) or self.temperature <= 0:
            message = f"temperature={self.temperature!r}: expected a number above 0"
            raise InputError(message)
        codes = self.languages
        if not isinstance(codes, list) or not all(isinstance(code, str) and code.strip() for code in codes):
            message = f"languages={codes!r}: expected a list of ISO 639 codes, as ['en', 'de']"
            raise InputError(message)
        for name in ("base", "training", "scores"):
            if not isinstance(getattr(self, name), dict):
                message = f"{name}={getattr(self, name)!r:.80}: expected an object of names and values"
                raise InputError(message)
        sources = self.data
        if not isinstance(sources, list) or not all(
            isinstance(d, dict) and {"name", "licence"} <= set(d) for d in sources
        ):
            message = f"data={sources!r:.80}: expected a list of objects with 'name' and 'licence'"
            raise InputError(message)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder, or None where there is none; every file that it names is checked.

        Raises:
            DamagedModelError: a file is missing or is not the one that was exported, or the manifest cannot be read.
        """
        import json  # slow to import

        path = folder / NAME
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values = {"languages": [], **values}  # bundles made before manifests had it
            manifest = cls(**{f.name: values[f.name] for f in fields(cls)})
            expected_files = dict(manifest.files)
        except (ValueError, KeyError, TypeError) as error:
            message = (
                f"{path} is not a manifest that this version can read ({error!r}): export or install the model again"
            )
            raise DamagedModelError(message) from error
        if not expected_files:
            message = f"{path} names no files, so nothing can be checked: export or install the model again"
            raise DamagedModelError(message)
        for name, expected in expected_files.items():
            file = folder / name
            found = sha256(file) if file.is_file() else "missing"
            if found != expected:
                message = (
                    f"{file} is damaged (sha256 {found}, its manifest says {expected}): export or install it again"
                )
                raise DamagedModelError(message)
        return manifest

    def write(self, folder: Path) -> None:
        """Write manifest.json, and the same for people as the model card, README.md."""
        import json  # slow to import

        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / NAME).write_text(text + "\n", encoding="utf-8")
        (folder / "README.md").write_text(self.card(), encoding="utf-8")

    def card(self) -> str:
        """The model card, in Markdown."""
        facts = {
            "Base": f"{self.base.get('model', 'not stated')} ({self.base.get('licence', 'licence not stated')})",
            "Outputs": ", ".join(self.labels),
            "Languages": ", ".join(self.languages),
            "Longest input": f"{self.max_length} tokens",
            "Judges at once": "as much as it takes" if self.window is None else f"{self.window} tokens of a passage",
            "Stored as": self.precision,
            "Temperature": f"{self.temperature:g}",
        }
        lines = [f"# {self.name} {self.version}", ""]
        lines += (f"- {name}: {fact}" for name, fact in facts.items() if fact)
        lines += ["", "## Trained on", ""]
        lines += [f"- {d['name']} ({d['licence']})" for d in self.data] or ["Not stated."]
        if self.training:
            lines += ["", "## How", "", *(f"- {name}: {value}" for name, value in self.training.items())]
        lines += ["", "## Measured", ""]
        lines += [f"- {name}: {figure}" for name, figure in self.scores.items()] or ["Not measured."]
        return "\n".join(lines) + "\n"


def stated_languages(folder: Path) -> list[str]:
    """What a folder says of the model's languages; empty where nothing can be read.

    That is `languages` of its manifest, or else `language` of the metadata that README.md begins with on the Hub.
    """
    import json  # slow to import

    import huggingface_hub

    named: Any = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        named = json.loads((folder / NAME).read_text(encoding="utf-8")).get("languages", [])
    if not named:
        with contextlib.suppress(Exception):  # no README, or one whose metadata no parser of YAML takes
            named = (huggingface_hub.metadata_load(folder / "README.md") or {}).get("language")
    codes = named if isinstance(named, list) else [named]
    codes = ["no" if code is False else code for code in codes]  # to YAML 1.1, Norwegian is a denial
    return list(dict.fromkeys(code.strip() for code in codes if isinstance(code, str) and code.strip()))


def sha256(*paths: Path) -> str:
    """Hex digest of a file, or of several one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
