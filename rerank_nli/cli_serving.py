"""The command that answers over HTTP: `serve`."""

from __future__ import annotations

import ipaddress
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_nli.cli_options import LOADING, add_model
from rerank_nli.errors import InputError, counted, require

if TYPE_CHECKING:
    import argparse

    from rerank_nli.engines import Engine
    from rerank_nli.server_limits import Limits

__all__ = ["add_serve"]

_MEGABYTE = 2**20
_LOG = logging.getLogger("rerank_nli.server")


def add_serve(command: argparse.ArgumentParser) -> None:
    """Options of `serve`."""
    command.add_argument("--host", default="127.0.0.1", help="address to listen on; only this machine if unsaid")
    command.add_argument("--port", type=int, default=8080, help="0 takes a free one, and the first line says which")
    command.add_argument(
        "--model",
        action="append",
        metavar="NAME=PATH",
        help='or "mini"; more than one may be said, the first is default',
    )
    add_model(command, with_model=False)
    command.add_argument("--api-key-file", type=Path, help="tokens, one a line: a request must bring one of them")
    command.add_argument("--queue", type=int, default=256, help="requests at a time; more get 429")
    command.add_argument("--request-threads", type=int, default=32, help="requests that are worked on at a time")
    command.add_argument("--deadline", type=float, default=300, help="seconds for a request; after them, 504")
    command.add_argument("--max-megabytes", type=int, default=64, help="of a request's body; beyond it, 413")
    command.add_argument("--max-total-megabytes", type=int, default=256, help="of all bodies at a time; then, 429")
    command.add_argument("--max-characters", type=int, default=200_000, help="of one text; beyond it, 413")
    command.add_argument("--max-passages", type=int, default=10_000, help="of a request; beyond it, 413")
    command.add_argument("--batch-tokens", type=int, default=4_096, help="most tokens of a batch")
    command.add_argument("--wait-ms", type=float, default=2, help="how long a small batch waits for more")
    command.add_argument("--cache-size", type=int, default=10_000, help="pairs of each model that are remembered")
    command.add_argument("--log-texts", action="store_true", help="write what is asked into the log")
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "serve")
    import uvicorn

    from rerank_nli.server import create_app

    port = counted("--port", options.port, least=0, most=65_535)
    app = create_app(
        _engines(options),
        limits=_limits(options),
        batch_tokens=counted("--batch-tokens", options.batch_tokens),
        wait_ms=_positive("--wait-ms", options.wait_ms, least=0),
        cache_size=counted("--cache-size", options.cache_size, least=0),
        log_texts=options.log_texts,
    )
    gate = app.state.gate

    class Server(uvicorn.Server):
        """Stops in two steps: first nobody new is let in, and it goes once the last is answered."""

        async def startup(self, sockets: list[Any] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                host, port = self.servers[0].sockets[0].getsockname()[:2]
                _say("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")

        def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401 - as uvicorn has it
            if gate.stopping:  # asked twice: whoever is still inside is left
                super().handle_exit(sig, frame)
            gate.stop()

        async def on_tick(self, counter: int) -> bool:
            self.should_exit = self.should_exit or (gate.stopping and not gate.inside)
            return await super().on_tick(counter)

    _log_as_json()
    if not (_is_loopback(options.host) or options.api_key_file):
        _say("anyone who reaches this port may ask: give --api-key-file", logging.WARNING, host=options.host)
    Server(
        uvicorn.Config(
            app,
            host=options.host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=30,
        )
    ).run()
    return 0


def _engines(options: argparse.Namespace) -> dict[str, Engine]:
    """The models by name, opened."""
    from rerank_nli.server_models import open_safely

    how = {name: getattr(options, name) for name in LOADING}
    engines: dict[str, Engine] = {}
    for said in options.model or ["mini"]:
        name, found, path = ("mini", "=", "mini") if said == "mini" else said.partition("=")
        if not (name and found and path):
            message = f'--model {said!r}: expected NAME=PATH, the name that requests say and what to open, or "mini"'
            raise InputError(message)
        if name in engines:
            message = f"--model {said!r}: there is a {name!r} already, and a name stands for one model"
            raise InputError(message)
        engines[name] = open_safely(path, **how)
    return engines


def _limits(options: argparse.Namespace) -> Limits:
    from rerank_nli.server_limits import Limits

    keys: tuple[str, ...] = ()
    if options.api_key_file:
        text = options.api_key_file.read_text(encoding="utf-8-sig", errors="replace")
        keys = tuple(filter(None, map(str.strip, text.splitlines())))
        if not all(map(str.isascii, keys)):
            message = f"{options.api_key_file} has a token with more than ASCII, which no header brings: choose another"
            raise InputError(message)
        if not keys:
            message = f"{options.api_key_file} holds no token: write one into it, on a line of its own"
            raise InputError(message)
    return Limits(
        queue=counted("--queue", options.queue),
        threads=counted("--request-threads", options.request_threads),
        deadline=_positive("--deadline", options.deadline),
        body_bytes=counted("--max-megabytes", options.max_megabytes) * _MEGABYTE,
        bodies_bytes=counted("--max-total-megabytes", options.max_total_megabytes) * _MEGABYTE,
        passages=counted("--max-passages", options.max_passages),
        characters=counted("--max-characters", options.max_characters),
        keys=keys,
    )


def _positive(name: str, number: float, least: float = 1e-3) -> float:
    if least <= number < 1e9:  # noqa: PLR2004 - neither NaN nor for ever
        return number
    message = f"{name}={number}: expected a number of at least {least:g}"
    raise InputError(message)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        row = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(row, default=str)


def _log_as_json() -> None:
    """Have the server's log, and what uvicorn warns of, written to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for name, level in (("rerank_nli.server", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)


def _say(message: str, level: int = logging.INFO, **fields: Any) -> None:  # noqa: ANN401 - what JSON has
    _LOG.log(level, message, extra={"fields": fields})
