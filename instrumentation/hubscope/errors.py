"""The few errors hubscope raises on purpose, and the one table that maps each to a status.

Every one carries the remedy beside the message: what the user does next. Anything else that
escapes is a bug.
"""

from __future__ import annotations

from typing import NamedTuple


class HubscopeError(Exception):
    """Base of all errors that are answers, not bugs. `message` names the thing and where it stood."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class ConfigError(HubscopeError):
    """Wrong usage or configuration. `problems` holds every one of them, each with its path."""

    def __init__(self, message: str, remedy: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, remedy)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(
            (self.message, *(f"  {p}" for p in self.problems), *([f"  {self.remedy}"] if self.remedy else []))
        )


class MissingExtraError(ConfigError):
    """A command needs an optional part that is not installed. `extra` is what pip must be told."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs a part of hubscope that is not installed", f"pip install 'hubscope[{extra}]'")
        self.extra = extra


class BadInputError(HubscopeError):
    """Data from outside that cannot be read. Sending it again cannot help."""


class LakeError(HubscopeError):
    """The lake, or a file that was asked for, cannot be read."""


class RetryableError(HubscopeError):
    """Cannot be done now; the same request may succeed after `retry_after_s`."""

    def __init__(self, message: str, remedy: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, remedy)
        self.retry_after_s = retry_after_s


class PermanentError(HubscopeError):
    """A destination refused for good; retrying the same data cannot succeed."""


class Status(NamedTuple):
    """What each interface answers. `grpc` is the numeric canonical code."""

    exit_code: int
    http: int
    grpc: int


# Exit codes of the command line, as docs/reference lists them.
EXIT_DONE = 0
EXIT_ANSWER_IS_NO = 1
EXIT_USAGE = 2
EXIT_UNREADABLE = 4
EXIT_BUG = 70  # EX_SOFTWARE of BSD's sysexits
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it

# Ordered from the most derived to the base: the first that matches is the answer.
STATUS_OF: tuple[tuple[type[BaseException], Status], ...] = (
    (ConfigError, Status(EXIT_USAGE, 400, 9)),  # FAILED_PRECONDITION
    (BadInputError, Status(EXIT_UNREADABLE, 400, 3)),  # INVALID_ARGUMENT
    (RetryableError, Status(EXIT_UNREADABLE, 503, 14)),  # UNAVAILABLE
    (PermanentError, Status(EXIT_UNREADABLE, 500, 13)),  # INTERNAL
    (LakeError, Status(EXIT_UNREADABLE, 500, 13)),
    (HubscopeError, Status(EXIT_UNREADABLE, 500, 13)),
    (KeyboardInterrupt, Status(EXIT_INTERRUPTED, 503, 1)),  # CANCELLED
)


def status_of(error: BaseException) -> Status:
    """The statuses that stand for `error`; a bug (any other exception) is 500 / INTERNAL / EXIT_BUG."""
    for kind, status in STATUS_OF:
        if isinstance(error, kind):
            return status
    return Status(EXIT_BUG, 500, 13)
