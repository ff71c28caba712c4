"""PyTorch, on the CPU or a GPU."""

from __future__ import annotations

import copy
import functools
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.checkpoints import read_classifier, read_config, shards
from rerank_nli.deberta import skew_attention
from rerank_nli.engines import FolderEngine
from rerank_nli.errors import InputError, one_of, require
from rerank_nli.files import WEIGHTS, find
from rerank_nli.manifest import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rerank_nli.engines import Pairs
    from rerank_nli.scores import FloatArray
    from rerank_nli.windows import IntArray, Tokens

__all__ = ["TORCH_DTYPES", "TorchEngine", "usable_device"]

TORCH_DTYPES = ("auto", "fp32", "bf16", "fp16")


class TorchEngine(FolderEngine):
    """PyTorch, on the CPU or a GPU, through transformers (needs the `torch` extra).

    Args:
        folder: a Hugging Face folder with config.json, weights and tokenizer.
        labels: names of the outputs in order, where the checkpoint does not say.
        device: "auto" is CUDA where there is one, else the CPU; "cuda:0,cuda:1" share the batches of a call.
        dtype: "fp32", "bf16", "fp16"; "auto" is bf16 on CUDA and fp32 on the CPU.
        threads: of one batch, for the whole process as torch has it; None leaves torch's own choice.

    Raises:
        ModelNotFoundError, DamagedModelError, LabelError, InputError: as OnnxEngine.
        MissingExtraError: torch or transformers is not installed.
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
        self.file = find(folder, WEIGHTS)
        read_config(folder)
        super().__init__(folder, labels, threads)
        devices = [usable_device(one.strip()) for one in device.split(",")]
        self.device, self.parallel = ",".join(devices), len(devices)
        cuda = all(one.startswith("cuda") for one in devices)
        self.precision = ("bf16" if cuda else "fp32") if dtype == "auto" else dtype
        if self.threads is not None:
            require("torch", "torch").set_num_threads(self.threads)
        self._pid = os.getpid()
        model = read_classifier(folder, self.precision, "torch")
        self._models = [
            skew_attention(copied.to(one), keep=True)
            for copied, one in zip([model, *(copy.deepcopy(model) for _ in devices[1:])], devices, strict=True)
        ]
        self._turn = itertools.count()  # whose turn it is, counted without a lock, which a fork could leave locked
        self._require_outputs(folder, model.config.num_labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process loads the folder anew."""
        opened = functools.partial(TorchEngine, device=self.device, dtype=self.precision, threads=self.threads)
        return opened, (self.folder, self._given_labels)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 of the weights, of all their shards if there are several."""
        return sha256(*shards(self.file))

    def logits(self, pairs: Pairs) -> FloatArray:
        """(m, C) for one batch of (premise, hypothesis)."""
        return self._run(lambda model: model, self._template.arrays(pairs), "logits")

    def states(self, texts: Sequence[Tokens]) -> tuple[FloatArray, IntArray]:
        """(m, S, H) of the encoder's last layer, and its mask (m, S), for one batch of texts that each stand alone."""

        def encoder(model: Any) -> Any:  # noqa: ANN401
            return model.base_model.get_encoder() if model.config.is_encoder_decoder else model.base_model

        arrays = self._template.lone_arrays(texts)
        return self._run(encoder, arrays, "last_hidden_state"), arrays["attention_mask"]

    def _run(self, part: Callable[[Any], Any], arrays: dict[str, IntArray], output: str) -> FloatArray:
        torch = require("torch", "torch")
        if self._pid != os.getpid():
            torch.set_num_threads(1)  # OpenMP's threads did not survive the fork, and waiting for them would hang
            self._pid = os.getpid()
        model = self._models[next(self._turn) % self.parallel]
        types = getattr(model.config, "type_vocab_size", 0) > 1  # one type is none
        try:
            with torch.inference_mode():
                features = {
                    name: _moved(torch.from_numpy(array), model.device)
                    for name, array in arrays.items()
                    if types or name != "token_type_ids"
                }
                rows: FloatArray = getattr(part(model)(**features), output).float().cpu().numpy()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or re.search("not enough memory|allocate memory", str(error)):
                raise MemoryError(str(error)) from error
            raise
        except ValueError as error:
            if "no padding token is defined" not in str(error):
                raise
            message = (
                f"{self.folder / 'config.json'} names no pad_token_id: add the number of what pairs are padded with"
            )
            raise InputError(message) from error
        return rows


def _moved(tensor: Any, device: Any) -> Any:  # noqa: ANN401
    """On its device: to a GPU from pinned memory, so that the copy need not be waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def usable_device(device: str) -> str:
    """The device, or for "auto" CUDA where there is one, else the CPU.

    Raises:
        InputError: torch does not know it, or it is not there.
    """
    torch = require("torch", "torch")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        torch.empty(0, device=chosen)
    except (AssertionError, RuntimeError) as error:
        message = f"device={device!r} cannot be used here ({error}): use device='auto'"
        raise InputError(message) from error
    return chosen
