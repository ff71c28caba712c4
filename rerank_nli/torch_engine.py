"""PyTorch, on the CPU or a GPU."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.checkpoints import WEIGHTS, find, no_progress_bars, read_json, require_classifier, shards
from rerank_nli.engines import FolderEngine
from rerank_nli.errors import DamagedModelError, InputError, one_of, require
from rerank_nli.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rerank_nli.engines import Pairs
    from rerank_nli.scores import FloatArray

__all__ = ["TORCH_DTYPES", "TorchEngine"]

TORCH_DTYPES = ("auto", "fp32", "bf16", "fp16")


class TorchEngine(FolderEngine):
    """PyTorch, on the CPU or a GPU, through sentence-transformers' CrossEncoder (needs the `torch` extra).

    Args:
        folder: a Hugging Face folder with config.json, weights and tokenizer.
        labels: names of the outputs in order, where the checkpoint does not say.
        device: "auto" is CUDA where there is one, else the CPU.
        dtype: "fp32", "bf16", "fp16"; "auto" is bf16 on CUDA and fp32 on the CPU.
        threads: of one batch, for the whole process as torch has it; None leaves torch's own choice.

    Raises:
        ModelNotFoundError, DamagedModelError, LabelError: as OnnxEngine.
        MissingExtraError: torch or sentence-transformers is not installed.
    """

    name = "torch"

    def __init__(
        self,
        folder: str | Path,
        labels: Sequence[str] | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        one_of("dtype", dtype, TORCH_DTYPES)
        folder = Path(folder).resolve()
        self._weights = find(folder, WEIGHTS)
        require_classifier(folder, read_json(folder / "config.json"))
        super().__init__(folder, labels, threads)
        torch = require("torch", "torch")
        cuda = torch.cuda.is_available()
        self.device = ("cuda" if cuda else "cpu") if device == "auto" else device
        try:
            torch.empty(0, device=self.device)
        except (AssertionError, RuntimeError) as error:
            message = f"device={device!r} cannot be used here ({error}): use device='auto'"
            raise InputError(message) from error
        self.precision = ("bf16" if self.device.startswith("cuda") else "fp32") if dtype == "auto" else dtype
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        self._pid = os.getpid()
        self._model = self._open(torch)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the folder anew."""
        opened = functools.partial(TorchEngine, device=self.device, dtype=self.precision, threads=self.threads)
        return opened, (self.folder, self._given_labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 of the weights, of all their shards if there are several."""
        return sha256(*shards(self._weights))

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis)."""
        torch = require("torch", "torch")
        if self._pid != os.getpid():
            torch.set_num_threads(1)  # OpenMP's threads did not survive the fork, and waiting for them would hang
            self._pid = os.getpid()
        arrays = self._template.arrays(pairs)
        if getattr(self._model.config, "type_vocab_size", 0) < 2:  # noqa: PLR2004 - one type is none
            del arrays["token_type_ids"]
        try:
            with torch.inference_mode():
                features = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
                return self._model(**features).logits.float().cpu().numpy()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or re.search("not enough memory|allocate memory", str(error)):
                raise MemoryError(str(error)) from error
            raise

    def _open(self, torch: Any) -> Any:  # noqa: ANN401
        sentence_transformers = require("sentence_transformers", "torch")
        types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        try:
            with no_progress_bars():
                encoder = sentence_transformers.CrossEncoder(
                    str(self.folder),
                    device=self.device,
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"dtype": types[self.precision]},
                )
        except MemoryError:
            raise
        except Exception as error:
            message = f"the weights in {self.folder} cannot be read ({error}): fetch them again"
            raise DamagedModelError(message) from error
        self._require_outputs(self.folder, encoder.model.config.num_labels)
        return encoder.model.eval()
