"""Where `rerank-nli score --ray` has the parts of a file scored."""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from rerank_nli import InputError
from rerank_nli_ray.scorer import NLIScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

__all__ = ["on_cluster"]

_AHEAD = 2  # parts for each actor: while one is scored, the next one is on its way
_LIVES = 20  # how often an actor is started again, and a part given out again


def on_cluster(
    address: str,
    actors: int | None = None,
    **settings: Any,  # noqa: ANN401
) -> Callable[[Iterable[Any]], Generator[tuple[Any, dict[str, list[Any]]]]]:
    """A place for `rerank_nli.score_file` to have its parts scored: `spread=on_cluster("auto")`.

    Each part comes back once. One whose actor is lost is given out again.

    Args:
        address: of the cluster: "auto" finds the one of this machine, "local" starts one for the time being.
        actors: each with a model; None is as many as the nodes of the cluster have room for. Those that find no room
            are done without.
        **settings: of `NLIScorer`; `threads` is also the CPUs of each actor, 1 if None, and a `device` that begins with
            "cuda" asks for a GPU.

    Raises:
        InputError: what an actor refuses, at its start too; an address that is none; "local", and this machine has no
            room for an actor; columns and prefix, which belong to `score_file`.
        ConnectionError: there is no such cluster.
        ChildProcessError: actors were lost again and again.
    """
    if given := sorted({"columns", "prefix"} & settings.keys()):
        message = f"{' and '.join(given)}: the actors are given columns by their roles: tell score_file"
        raise InputError(message)
    cpus, gpus = settings.get("threads") or 1, int(str(settings.get("device", "")).startswith("cuda"))

    def spread(parts: Iterable[Any]) -> Generator[tuple[Any, dict[str, list[Any]]]]:
        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(address, log_to_driver=False, logging_level="ERROR")
            except ValueError as error:
                message = f"Ray cannot use the address {address!r}: {error}"
                raise InputError(message) from error
        lives = {"max_restarts": _LIVES, "max_task_retries": _LIVES}
        start = functools.partial(
            ray.remote(NLIScorer).options(num_cpus=cpus, num_gpus=gpus, **lives).remote, **settings
        )
        pool: list[Any] = []
        try:
            room = _room(cpus, gpus)
            if address == "local" and not room:  # another cluster may grow
                message = f"an actor takes {cpus} CPUs{' and a GPU' if gpus else ''}, which this machine has not"
                raise InputError(message)
            pool += (start() for _ in range(actors or max(1, room)))
            yield from _scored(pool, parts)
        except RayActorError as error:
            if error.actor_init_failed:
                message = f"an actor cannot start: {str(error).strip().splitlines()[-1]}"
                raise InputError(message) from error
            message = f"actors were lost {_LIVES} times over ({error}): what is scored is kept, run the same again"
            raise ChildProcessError(message) from error
        finally:
            for actor in pool:
                ray.kill(actor)
            if ours:
                ray.shutdown()

    return spread


def _scored(pool: list[Any], parts: Iterable[Any]) -> Iterator[tuple[Any, dict[str, list[Any]]]]:
    free: deque[Any] = deque()
    # what is awaited: a part and its actor, or that an actor stands, which on a full cluster it never may
    running: dict[Any, tuple[Any, Any]] = {actor.__ray_ready__.remote(): (None, actor) for actor in pool}
    for part in parts:
        while not free:
            yield from _next(running, free)
        actor = free.popleft()
        running[actor.scores.remote(part.columns)] = part, actor
    while any(part is not None for part, _ in running.values()):
        yield from _next(running, free)


def _next(running: dict[Any, tuple[Any, Any]], free: deque[Any]) -> Iterator[tuple[Any, dict[str, list[Any]]]]:
    """Wait for one of them; the part that it was, with its scores."""
    (ready,), _ = ray.wait(list(running), num_returns=1)
    part, actor = running.pop(ready)
    try:
        scores = ray.get(ready)
    except RayTaskError as error:
        message = f"rows {part.first + 1} to {part.end}: {error.cause}"
        raise InputError(message) from error
    free.extend([actor] * (_AHEAD if part is None else 1))
    if part is not None:
        yield part, scores


def _room(cpus: int, gpus: int) -> int:
    """Actors that the nodes of a cluster hold at once."""
    name, each = ("GPU", gpus) if gpus else ("CPU", cpus)
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return sum(int(has.get(name, 0) // each) for has in nodes)
