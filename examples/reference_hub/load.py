"""Users of the hub: python -m reference_hub.load URL [--questions 8] [--browses 8] [--additions 5] [--seed 1]

One user at a time, one request after the other, the same requests in the same order for the same seed. Prints one JSON
object: requests, failures, seconds, and seconds by kind of request.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import time
from collections import defaultdict
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

# Users come back to a few subjects, in other words each time.
QUESTIONS = (
    "How do I parse a date string with a time zone?",
    "What is the variance of a probability distribution?",
    "Send an HTTP request with headers and a timeout",
    "Parse a time string into a date and its zone",
    "The mean and the variance of a random distribution",
    "Which timeout does an HTTP request have, and which headers?",
    "Convert a date with a time zone to a string",
    "Draw a random sample from a distribution and give its variance",
    "Read the headers of an HTTP response before the timeout",
)
KINDS = ("function", "method", "class")
NOTES = (
    "The parser accepts a date string with a time zone only in its long form",
    "Remember that the array is copied when its type changes",
    "The collector answers late when the file system is slow to write",
    "A wheel for this platform was built with the other compiler",
)
TIMEOUT_S = 60.0


class Request(NamedTuple):
    kind: str
    method: str
    target: str
    body: dict[str, Any] | None


def requests(personas: list[str], questions: int, browses: int, additions: int, seed: int) -> list[Request]:
    """What the users do, mixed by `seed`; every persona is asked in turn."""
    chance = random.Random(seed)
    made = [
        Request(
            "ask", "POST", "/ask", {"persona": personas[i % len(personas)], "question": QUESTIONS[i % len(QUESTIONS)]}
        )
        for i in range(questions)
    ]
    for i in range(browses):
        query = {"persona": personas[i % len(personas)], "kind": KINDS[i % len(KINDS)], "page": 1 + i % 2}
        made.append(Request("browse", "GET", f"/memories?{urlencode(query)}", None))
    for i in range(additions):
        text = f"{NOTES[i % len(NOTES)]}, seen {i + 1} times with seed {seed}."
        made.append(Request("add", "POST", "/memories", {"persona": personas[i % len(personas)], "text": text}))
    chance.shuffle(made)
    return made


def drive(url: str, todo: list[Request]) -> dict[str, Any]:
    """Sends the requests over one connection; raises OSError if the hub does not answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
    seconds: dict[str, float] = defaultdict(float)
    failures: list[str] = []
    begin = time.perf_counter()
    for request in todo:
        body = None if request.body is None else json.dumps(request.body)
        start = time.perf_counter()
        connection.request(request.method, request.target, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        seconds[request.kind] += time.perf_counter() - start
        if response.status != 200:
            failures.append(f"{request.method} {request.target}: {response.status} {answer[:200]!r}")
    connection.close()
    return {
        "requests": len(todo),
        "failures": failures,
        "seconds": round(time.perf_counter() - begin, 3),
        "seconds_by_kind": {kind: round(value, 3) for kind, value in sorted(seconds.items())},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reference_hub.load", description="Users of the reference hub.")
    parser.add_argument("url", help="where the hub listens: http://127.0.0.1:8080")
    parser.add_argument("--personas", default="ada,grace,radia,linus", help="whom they ask (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--browses", type=int, default=8)
    parser.add_argument("--additions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    todo = requests(given.personas.split(","), given.questions, given.browses, given.additions, given.seed)
    try:
        done = drive(given.url, todo)
    except (OSError, http.client.HTTPException) as error:
        print(f"error: the hub at {given.url} does not answer: {error!r}", file=sys.stderr)
        return 1
    print(json.dumps(done))
    return 1 if done["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
