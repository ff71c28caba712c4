"""The HTTP server: its routes, and the app that holds them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from rerank_nli.errors import CalibrationError, InputError, InputTypeError, LabelError
from rerank_nli.server_answers import Answers
from rerank_nli.server_forms import (
    FORM_NAMES,
    CheckForm,
    CohereForm,
    LabelScore,
    PredictForm,
    Problem,
    Ranked,
    RankedV2,
    Rerank,
    RerankForm,
    TextScore,
    TextsForm,
    VerifyForm,
)
from rerank_nli.server_limits import Gate, Limits
from rerank_nli.server_metrics import Metrics, State
from rerank_nli.server_models import Models, UnknownModelError
from rerank_nli.server_pages import HEADERS, PLAYGROUND, documentation
from rerank_nli.server_requests import Requests, problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from rerank_nli.engines import Engine

__all__ = ["create_app"]

_ABOUT = "Ranks and filters passages by whether they entail the query, and judges claims and answers by them."
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The body is no JSON.",
        401: "The token is missing or another.",
        404: "There is no such model.",
        408: "The body did not arrive in time.",
        413: "The body or its list is too large.",
        415: "The body is not called JSON.",
        422: "A field is missing, or has a value that cannot be used.",
        429: "The server is full: Retry-After says when to ask again.",
        503: "The server is stopping.",
        504: "The deadline passed before all was scored.",
    }.items()
}


def create_app(
    engines: Mapping[str, Engine],
    *,
    limits: Limits | None = None,
    batch_tokens: int = 4_096,
    wait_ms: float = 2.0,
    cache_size: int = 10_000,
    log_texts: bool = False,
) -> FastAPI:
    """An ASGI app that answers with these models.

    `app.state.gate.stop()` has it finish what it has begun and refuse what is new.

    Args:
        engines: by the name that requests say; the first is the default.
        limits: what the server takes on.
        batch_tokens: most tokens of a batch.
        wait_ms: how long a small batch waits for more.
        cache_size: pairs whose logits are remembered, of each model.
        log_texts: whether the log may hold what was asked.
    """
    limits = limits or Limits()
    metrics, gate = Metrics(), Gate(limits)
    models = Models(engines, metrics.merged, batch_tokens=batch_tokens, wait_ms=wait_ms, cache_size=cache_size)
    metrics.registry.register(State(gate, models))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        gate.stop()
        gate.close()
        models.close()

    app = FastAPI(
        title="rerank-nli",
        description=_ABOUT,
        version=importlib.metadata.version("rerank-nli"),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.gate = gate
    app.add_middleware(Requests, gate=gate, metrics=metrics, log_texts=log_texts)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misformed)
    for error in (InputError, InputTypeError, LabelError, CalibrationError):
        app.add_exception_handler(error, _unusable)
    _add_verbs(app, gate, Answers(models, metrics, limits))
    _add_state(app, gate, models, metrics, time.time())
    _add_pages(app)
    return app


def _add_verbs(app: FastAPI, gate: Gate, answers: Answers) -> None:
    """The routes that score."""

    async def answer(request: Request, form: Any, verb: Callable[..., Any]) -> Response:  # noqa: ANN401 - any form
        state = request.state
        state.line["form"] = form  # which the log may show, if it is told to
        gate.limits.require_short(list(dict(form).values()))
        body = await gate.run(
            request, state.arrived, lambda work: json.dumps(verb(form, work, state.id), allow_nan=False).encode()
        )
        return Response(body, media_type="application/json")

    def post(path: str, shape: Any) -> Callable[..., Any]:  # noqa: ANN401 - a type
        return app.post(path, response_model=shape, response_model_exclude_unset=True, responses=_PROBLEMS)

    @post("/v2/rerank", RankedV2)
    async def cohere(request: Request, form: CohereForm) -> Response:
        """Documents in order, as Cohere's second version has it."""
        return await answer(request, form, answers.cohere)

    @post("/v1/rerank", Ranked | list[TextScore])
    @post("/rerank", Ranked | list[TextScore])
    async def rerank(request: Request, form: Rerank) -> Response:
        """Documents in order, as Cohere's first version, Jina and vLLM have it; texts as Text Embeddings Inference."""
        return await answer(request, form, answers.texts if isinstance(form, TextsForm) else answers.rerank)

    @post("/infinity/rerank", Ranked)
    async def infinity(request: Request, form: RerankForm) -> Response:
        """Documents in order, a returned one as its text alone, as Infinity has it."""
        return await answer(request, form, answers.infinity)

    @post("/predict", list[LabelScore] | list[list[LabelScore]])
    async def predict(request: Request, form: PredictForm) -> Response:
        """Labels of pairs, as Text Embeddings Inference has it."""
        return await answer(request, form, answers.predict)

    @post("/v1/verify", dict[str, Any])
    async def verify(request: Request, form: VerifyForm) -> Response:
        """A verdict on a claim."""
        return await answer(request, form, answers.verify)

    @post("/v1/check", dict[str, Any])
    async def check(request: Request, form: CheckForm) -> Response:
        """A verdict on each sentence of an answer that states something."""
        return await answer(request, form, answers.check)


def _add_state(app: FastAPI, gate: Gate, models: Models, metrics: Metrics, since: float) -> None:
    """The routes that say how the server is, and what it has."""
    refused: dict[int | str, dict[str, Any]] = {401: _PROBLEMS[401]}

    @app.head("/health", include_in_schema=False)
    @app.get("/health", responses={503: {"description": "The server is stopping."}})
    async def health() -> JSONResponse:
        """Whether the server takes requests."""
        return JSONResponse({"status": "stopping"}, 503) if gate.stopping else JSONResponse({"status": "ok"})

    @app.get("/metrics", responses=refused, response_class=Response)
    def read_metrics() -> Response:
        """What was counted, as Prometheus reads it."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models", responses=refused)
    async def list_models() -> dict[str, Any]:
        """The names that a request may say; the first is the default."""
        rows = [{"id": n, "object": "model", "created": int(since), "owned_by": "rerank-nli"} for n in models.names]
        return {"object": "list", "data": rows}

    @app.get("/info", responses=refused)
    def info() -> dict[str, Any]:
        """The default model, as Text Embeddings Inference has it."""
        name = models.names[0]
        engine = models.reranker(name).engine
        labels = engine.labels.names
        return {
            "model_id": name,
            "model_sha": engine.fingerprint,
            "model_dtype": engine.precision,
            "model_type": {
                "reranker": {
                    "id2label": {str(i): label for i, label in enumerate(labels)},
                    "label2id": {label: i for i, label in enumerate(labels)},
                }
            },
            "max_concurrent_requests": gate.limits.queue,
            "max_batch_tokens": models.batch_tokens,
            "tokenization_workers": gate.limits.threads,
            "max_input_length": engine.max_length,
            "max_client_batch_size": gate.limits.passages,
            "auto_truncate": False,
            "version": app.version,
        }


def _add_pages(app: FastAPI) -> None:
    """The routes that people look at."""

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(documentation(app.openapi()), headers=HEADERS)

    @app.get("/", include_in_schema=False)
    def playground() -> FileResponse:
        return FileResponse(PLAYGROUND / "index.html", headers=HEADERS)

    app.mount("/playground", StaticFiles(directory=PLAYGROUND))


async def _refused(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, HTTPException) else HTTPException(500)
    message = refusal.detail
    if refusal.status_code == 400 and refusal.__cause__ is not None:  # noqa: PLR2004 - a body that is not read
        deep = isinstance(refusal.__cause__, RecursionError)
        reason = "it is nested too deeply" if deep else str(refusal.__cause__).partition(";")[0]
        message = f"the body cannot be read as JSON in UTF-8: {reason:.200}"
    elif refusal.status_code in (404, 405):
        message = f"there is no {request.method} {request.url.path:.100} here: /docs lists what there is"
    return problem(request.scope, refusal.status_code, message, dict(refusal.headers or {}))


async def _misformed(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    if found and found[0]["type"] == "json_invalid":
        message = f"the body is no JSON: {found[0]['ctx']['error']} at character {found[0]['loc'][1]}"
        return problem(request.scope, 400, message)
    if isinstance(getattr(error, "body", None), bytes):
        message = "the body must be JSON: send it with the header Content-Type: application/json"
        return problem(request.scope, 415, message)
    message = "; ".join(
        dict.fromkeys(f"{_place(one['loc'])}: {one['msg'].removeprefix('Value error, ')}" for one in found[:5])
    )
    return problem(request.scope, 422, message)


async def _unusable(request: Request, error: Exception) -> Response:
    return problem(request.scope, 404 if isinstance(error, UnknownModelError) else 422, str(error))


def _place(parts: tuple[int | str, ...]) -> str:
    """Where in the body: "documents.3"; the names of the forms that were tried are left out."""
    inside = [str(part) for part in parts[1:] if part not in (*FORM_NAMES, "str", "dict[str,any]")]
    return ".".join(inside) or "the body"
