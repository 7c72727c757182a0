"""`google.rpc.Status`, the body of every HTTP error and the detail of every gRPC one."""

from __future__ import annotations

import math
from typing import Final

from google.protobuf import json_format
from google.rpc.error_details_pb2 import BadRequest, RetryInfo  # type: ignore[import-untyped]  # ships no types
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # ships no types

from hubscope.errors import BadInputError, RetryableError

GRPC_DETAILS: Final = "grpc-status-details-bin"
GRPC_RETRY_INFO: Final = "google.rpc.retryinfo-bin"  # what the Python exporter reads
MESSAGE_LIMIT: Final = 1000  # characters: a status travels in a header of 8 KiB, and nobody reads more


def one_line(text: str) -> str:
    """A message that is safe in a header and in JSON: printable, short, whatever the request held."""
    text = " ".join("".join(c if c.isprintable() else "�" if c not in "\r\n\t" else " " for c in text).split())
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"


def of(code: int, message: str) -> Status:
    """A status without details. `code` is the canonical gRPC code."""
    return Status(code=code, message=one_line(message))


def bad_request(error: BadInputError, code: int = 3) -> Status:
    """INVALID_ARGUMENT with a BadRequest that says what was wrong, and what to do."""
    status = of(code, error.message)
    violation = BadRequest.FieldViolation(field="body", description=one_line(f"{error.message}. {error.remedy}"))
    status.details.add().Pack(BadRequest(field_violations=[violation]))
    return status


def retry_info(error: RetryableError) -> RetryInfo:
    """When to come again."""
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(max(1, round(error.retry_after_s * 1000)))
    return info


def unavailable(error: RetryableError) -> Status:
    """UNAVAILABLE with RetryInfo."""
    status = of(14, error.message)
    status.details.add().Pack(retry_info(error))
    return status


def retry_after_header(error: RetryableError) -> bytes:
    """Whole seconds, at least one: the header knows no fractions."""
    return str(max(1, math.ceil(error.retry_after_s))).encode()


def to_json(status: Status) -> bytes:
    """A status as the JSON body of an HTTP error."""
    return json_format.MessageToJson(status, indent=None).encode()
