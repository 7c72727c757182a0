"""OTLP/HTTP through a `requests.Session` that another package provides: its authentication is its own."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from hubscope.exporters.delivery import USER_AGENT
from hubscope.exporters.delivery.http_sender import COMPRESSION, outcome_of
from hubscope.exporters.delivery.leaving import Wait
from hubscope.exporters.delivery.outcome import Came, Outcome, text
from hubscope.exporters.delivery.providers import provided

if TYPE_CHECKING:
    from hubscope.exporters.delivery.settings import Destination


class SessionSender:
    """Sends by the session of the entry point that `destination.provider` names. Not thread-safe."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._session: Any = None

    def send(self, payload: bytes, wait: Wait) -> Outcome:
        """Send one request and wait for its answer. Raises nothing."""
        came: list[Outcome] = []
        done = threading.Event()

        def post() -> None:  # in a thread of its own: nothing can interrupt a session
            try:
                came.append(self._post(payload, wait.left_s()))
            except Exception as error:  # noqa: BLE001 - whatever the provider's own code raises
                came.append(Outcome(Came.LATER, text(str(error).encode()) or type(error).__name__))
            finally:
                done.set()

        try:
            threading.Thread(target=post, daemon=True, name="hubscope-post").start()
        except RuntimeError:  # the interpreter is too far gone for new threads
            post()
        try:
            while not done.wait(wait.slice_s()):
                continue
        except TimeoutError as error:
            self._session = None
            return Outcome(Came.LATER, str(error))
        return came[0]

    def _post(self, payload: bytes, timeout_s: float) -> Outcome:
        import requests

        destination = self._destination
        if self._session is None:
            self._session = provided(destination.provider, requests.Session, "requests.Session")
            self._session.verify = destination.ca_file or True
            if destination.cert_file:
                pair = (destination.cert_file, destination.key_file)
                self._session.cert = pair if destination.key_file else destination.cert_file
        headers = {"content-type": "application/x-protobuf", "user-agent": USER_AGENT, **dict(destination.headers)}
        if destination.compression != "none":
            headers.setdefault("content-encoding", destination.compression)
        answer = self._session.request(
            "POST",
            destination.endpoint,
            headers=headers,
            data=COMPRESSION[destination.compression](payload),
            timeout=max(timeout_s, 0.001),
            allow_redirects=False,
        )
        lower = {name.lower(): value for name, value in answer.headers.items()}
        return outcome_of(answer.status_code, answer.reason or "", lower, answer.content)

    def close(self) -> None:
        """Close the session; the next request asks for another one."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def forget(self) -> None:
        """In a forked child: it gets a session of its own."""
        self._session = None
