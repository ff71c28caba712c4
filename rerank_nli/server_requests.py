"""What happens to every request: its id, its token, its size and time, one line in the log, and one form of error."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
import uuid
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.routing import Match

from rerank_nli.server_limits import CLIENT_GONE, RefusalError, is_authorized

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rerank_nli.server_limits import Gate
    from rerank_nli.server_metrics import Metrics

__all__ = ["Requests", "problem"]

_LOG = logging.getLogger("rerank_nli.server")
_OPEN = "/health"  # what answers without a token
_TYPES = {
    401: "unauthorized",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    429: "overloaded",
    500: "error",
    503: "unavailable",
    504: "timeout",
}


def _route(scope: Scope) -> str:
    """The path of the route, also of a request that was refused before it came there."""
    routes = [scope["route"]] if "route" in scope else scope["app"].routes
    found = (route.path for route in routes if "route" in scope or route.matches(scope)[0] is Match.FULL)
    return next(found, "other")


def problem(scope: Scope, status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as every client of ours looks for it: Cohere's, Jina's, Haystack's and Text Embeddings Inference's."""
    kind = _TYPES.get(status, "invalid")
    body = {"message": message, "detail": message, "error": message, "error_type": kind, "id": scope["state"]["id"]}
    return JSONResponse(body, status, headers)


class Requests:
    """An ASGI app around another, that gives each request what it needs and lets no error out unseen.

    Args:
        app: the app.
        gate: what it takes on.
        metrics: where answers are counted.
        log_texts: whether the log may hold what was asked.
    """

    def __init__(self, app: ASGIApp, gate: Gate, metrics: Metrics, *, log_texts: bool = False) -> None:
        self._app, self._gate, self._metrics = app, gate, metrics
        self._log_texts = log_texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived = time.monotonic()
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        own = asked if re.fullmatch(r"[\w.:/+=-]{1,128}", asked, re.ASCII) else uuid.uuid4().hex
        line: dict[str, Any] = {"id": own, "method": scope["method"], "status": 0}
        scope["state"] = {**scope.get("state", {}), "id": own, "arrived": arrived, "line": line, "held": 0}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = own
            await send(message)

        try:
            self._require_welcome(scope, headers)
            await self._app(scope, self._limited(scope, headers, receive), answer)
        except RefusalError as refusal:
            await problem(scope, refusal.status_code, refusal.detail, dict(refusal.headers or {}))(
                scope, receive, answer
            )
        except Exception as error:
            if line["status"]:
                raise
            line["failure"] = self._failure(error)
            message = f"an error on the server's side, which its log has under the id {own}"
            await problem(scope, 500, message)(scope, receive, answer)
        finally:
            self._gate.hold(-scope["state"]["held"])
            self._done(scope, line, time.monotonic() - arrived)

    def _require_welcome(self, scope: Scope, headers: Headers) -> None:
        keys = self._gate.limits.keys
        if keys and scope["path"] != _OPEN and not is_authorized(headers.get("authorization", ""), keys):
            message = "this server answers only with its token: send the header Authorization: Bearer TOKEN"
            refusal = RefusalError(401, message)
            # Basic alone: a browser shows its form for the playground only where no other scheme shares the header
            refusal.headers = {"WWW-Authenticate": 'Basic realm="rerank-nli"'}
            raise refusal
        packed = headers.get("content-encoding", "").strip()
        if packed.lower() not in ("", "identity"):
            message = f"the body has Content-Encoding: {packed[:40]}, which is not read here: send it as it is"
            raise RefusalError(415, message)
        if scope["method"] == "POST":
            self._gate.require_open()

    def _limited(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """What receives a body, up to its limits of bytes and of time."""
        limits = self._gate.limits
        length = headers.get("content-length", "")
        declared = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else 0
        state, whole = scope["state"], False

        async def receive_some() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            try:
                left = state["arrived"] + limits.deadline - time.monotonic()
                message = await asyncio.wait_for(receive(), max(0.0, left))
            except (asyncio.TimeoutError, TimeoutError) as error:
                late = f"the body did not arrive within {limits.deadline:g} seconds"
                raise RefusalError(408, late) from error
            if message["type"] == "http.disconnect":
                raise RefusalError(CLIENT_GONE, "the client has left")
            more = len(message.get("body", b""))
            state["held"] += more
            self._gate.hold(more)
            if max(state["held"], declared) > limits.body_bytes:
                large = (
                    f"the body has more than the {limits.body_bytes} bytes that this server reads: send less at once"
                )
                raise RefusalError(413, large)
            whole = not message.get("more_body", False)
            return message

        return receive_some

    def _done(self, scope: Scope, line: dict[str, Any], seconds: float) -> None:
        route = _route(scope)
        line |= {"route": route, "seconds": round(seconds, 4)}
        self._metrics.answered(route, line["status"] or CLIENT_GONE, seconds)
        form = line.pop("form", None)
        if self._log_texts and form is not None:
            line["texts"] = form.model_dump(exclude_none=True)
        _LOG.log(logging.ERROR if "failure" in line else logging.INFO, "request", extra={"fields": line})

    def _failure(self, error: Exception) -> dict[str, Any]:
        """What failed and where; what it says may hold a caller's text, and is left out unless texts may be logged."""
        frames = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        said = {"message": str(error)} if self._log_texts else {}
        return {"type": type(error).__qualname__, **said, "frames": frames}
