"""The pages that people see: what the routes take, made from the OpenAPI page without a script, and the playground."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["HEADERS", "PLAYGROUND", "documentation"]

PLAYGROUND = Path(__file__).parent / "playground"  # a folder: index.html, which asks for the files beside it
HEADERS = {  # a page asks nobody but this server for anything, and stands in no other page
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "script-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; }
section { margin: 2rem 0; } h2 { font-size: 1.1rem; } code, pre { font-family: ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid; border-radius: .25rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
"""


def documentation(openapi: dict[str, Any]) -> str:
    """One page of HTML: each route with the fields it takes, and an example for curl where there is one."""
    routes = [
        _route(openapi, path, method, operation)
        for path, methods in openapi["paths"].items()
        for method, operation in methods.items()
    ]
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1><p>{escape(openapi['info']['description'])} "
        f'For machines: <a href="openapi.json">openapi.json</a>.</p>{"".join(routes)}</body></html>'
    )


def _route(openapi: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    forms = [_resolved(openapi, form) for form in body.get("oneOf", [body] if body else [])]
    summary = escape(operation.get("description") or operation.get("summary", ""))
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{summary}</p>"
        f"{''.join(_form(path, form) for form in forms)}</section>"
    )


def _form(path: str, form: dict[str, Any]) -> str:
    needed, fields = form.get("required", []), form["properties"]
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{'needed' if name in needed else ''}</td>"
        f"<td>{escape(field.get('description', ''))} {escape(_allowed(field))}</td></tr>"
        for name, field in fields.items()
    )
    example = {name: field["examples"][0] for name, field in fields.items() if field.get("examples")}
    sent = json.dumps(example, ensure_ascii=False)
    curl = f"curl http://127.0.0.1:8080{path} -H 'Content-Type: application/json' -d '{sent}'"
    return (
        f"<p>{escape(form.get('description', ''))}</p><table><tr><th>field</th><th></th><th>what it is</th></tr>"
        f"{rows}</table><pre>{escape(curl)}</pre>"
    )


def _allowed(field: dict[str, Any]) -> str:
    """The values that a field may have, where they are few."""
    for kind in (field, *field.get("anyOf", ())):
        if "enum" in kind:
            return "one of " + ", ".join(map(str, kind["enum"]))
    return ""


def _resolved(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return openapi["components"]["schemas"][name] if name else schema
