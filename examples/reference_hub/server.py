"""The hub behind HTTP: JSON in, JSON out, one thread a connection.

GET  /                                   the shell page (HTML)
GET  /healthz                            {"status": "ok"}
POST /ask         {persona, question}    {answer, memories, notes}
GET  /memories?persona=ada&kind=class    {total, last_used, memories}; &page=2
POST /memories    {persona, text}        {id}
GET  /statistics?persona=ada             {memories, median_characters, skewness_of_logarithm}
POST /rating      {rating: 0..1, task}   {}
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hubscope import instrumentation as hub
from reference_hub import tasks
from reference_hub.personas import Persona
from reference_hub.tasks import Application

MAX_BODY_BYTES = 64 * 1024
KINDS = ("module", "class", "function", "method", "note")
TASKS = ("answer_question", "browse_memories", "add_memory", "memory_statistics")
Fields = dict[str, Any]


class WrongRequest(ValueError):
    """The request cannot be understood; the text says which part."""


def shell_page(app: Application) -> bytes:
    """The first thing that a user sees, complete without a further request."""
    people = "".join(
        f"<li>{html.escape(persona.name)} (<code>{persona.id}</code>)" for persona in app.personas.values()
    )
    return (
        "<!doctype html><meta charset=utf-8><title>reference hub</title><h1>reference hub</h1>"
        f"<p>{app.store.last_id()} memories, {len(app.plugins.get_plugins())} plugins.<ul>{people}</ul>"
    ).encode()


def _persona(app: Application, fields: Fields) -> Persona:
    wanted = fields.get("persona")
    if not isinstance(wanted, str) or wanted not in app.personas:
        raise WrongRequest(f"persona must be one of {', '.join(app.personas)}, got {wanted!r}")
    return app.personas[wanted]


def _text(fields: Fields, name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str) or not text.strip():
        raise WrongRequest(f"{name} must be text that is not empty")
    return text


def _ask(app: Application, fields: Fields) -> Fields:
    answer = tasks.answer_question(app, _persona(app, fields), _text(fields, "question"))
    return {"answer": answer.text, "memories": answer.memories, "notes": answer.notes}


def _browse(app: Application, fields: Fields) -> Fields:
    kind, page = fields.get("kind"), fields.get("page", "1")
    if kind not in KINDS:
        raise WrongRequest(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not page.isdecimal() or not 1 <= int(page) <= 100_000:
        raise WrongRequest(f"page must be a number from 1, got {page!r}")
    found = tasks.browse_memories(app, _persona(app, fields), kind, int(page))
    return {"total": found.total, "last_used": found.last_used, "memories": [asdict(line) for line in found.lines]}


def _add(app: Application, fields: Fields) -> Fields:
    return {"id": tasks.add_memory(app, _persona(app, fields), _text(fields, "text"))}


def _statistics(app: Application, fields: Fields) -> Fields:
    return dict(tasks.memory_statistics(app, _persona(app, fields)))


def _rate(app: Application, fields: Fields) -> Fields:
    rating, task = fields.get("rating"), fields.get("task")
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 <= rating <= 1 or math.isnan(rating):
        raise WrongRequest(f"rating must be a number from 0 to 1, got {rating!r}")
    if task is not None and task not in TASKS:
        raise WrongRequest(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    hub.rating(float(rating), task=task)
    return {}


ROUTES: dict[tuple[str, str], Callable[[Application, Fields], Fields]] = {
    ("GET", "/healthz"): lambda app, fields: {"status": "ok"},
    ("POST", "/ask"): _ask,
    ("GET", "/memories"): _browse,
    ("POST", "/memories"): _add,
    ("GET", "/statistics"): _statistics,
    ("POST", "/rating"): _rate,
}


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # a silent connection gives its thread back
    disable_nagle_algorithm = True  # headers and body go out in two writes; without this the second waits 40 ms

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        else:
            self._answer(url.path, {key: values[-1] for key, values in parse_qs(url.query).items()})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True  # the body is left unread
            self._fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of 0 to {MAX_BODY_BYTES} bytes is expected")
            return
        try:
            fields = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict):
            self._answer(urlsplit(self.path).path, fields)
        else:
            self._fail(HTTPStatus.BAD_REQUEST, "the body must be a JSON object")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: telemetry is what this application is about."""

    def _answer(self, path: str, fields: Fields) -> None:
        route = ROUTES.get((self.command, path))
        if route is None:
            self._fail(HTTPStatus.NOT_FOUND, f"there is no {self.command} {path}")
            return
        try:
            answer = route(self.server.app, fields)
        except (WrongRequest, tasks.Refused) as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 - one request's failure must not take the connection's thread
            self.log_error("%s %s: %r", self.command, path, error)
            self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            self._send(HTTPStatus.OK, json.dumps(answer).encode(), "application/json")

    def _fail(self, status: HTTPStatus, reason: str) -> None:
        self._send(status, json.dumps({"error": reason}).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], app: Application, page: bytes) -> None:
        super().__init__(address, Handler)
        self.app = app
        self.page = page
