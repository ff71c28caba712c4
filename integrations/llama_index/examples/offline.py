"""An embedding and a language model that need no network: in an application your own stand in their place."""

from __future__ import annotations

import re
from typing import Any
from zlib import crc32

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback

_SIZE = 512


class WordEmbedding(BaseEmbedding):
    """Counts words: texts are alike when they share them, whatever they say."""

    def _get_text_embedding(self, text: str) -> list[float]:
        counts = [0.0] * _SIZE
        for word in re.findall(r"\w+", text.lower()):
            counts[crc32(word.encode()) % _SIZE] += 1.0
        return counts

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class CannedLLM(CustomLLM):
    """Gives the same answer to everything."""

    answer: str

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know of a model."""
        return LLMMetadata(model_name="canned")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:  # noqa: ANN401, ARG002, FBT001, FBT002 - as in CustomLLM
        """The answer."""
        return CompletionResponse(text=self.answer)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:  # noqa: ANN401, ARG002, FBT001, FBT002 - as in CustomLLM
        """The answer, in one piece."""
        yield CompletionResponse(text=self.answer, delta=self.answer)
