"""What looks like a secret: texts by their shape, attributes by their key.

Each pattern is one that RE2 and Python's `re` read alike: one pass of RE2 over whole columns finds out whether there is
anything at all, Python then replaces exactly what is the secret. The first group is the secret, or else the match.

Shapes are the vendors' published ones; gitleaks' rules (github.com/gitleaks/gitleaks, config/gitleaks.toml) and
detect-secrets' plugins were read for which of them are worth looking for, and the Collector's redactionprocessor for
what can be set. Unlike theirs, ours begin at a fixed text, because what begins anywhere (`\\w{0,50}?acme…`) costs a
hundred times more, and repetitions are bounded, so that no input makes them slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple


class SecretPattern(NamedTuple):
    """`plausible(secret)` may refuse what only looks like one. `loose` replaces the expression where RE2 reads."""

    kind: str  # what the counters call it
    expression: str
    plausible: Callable[[str], bool] | None = None
    loose: str = ""


def _mixed(text: str) -> bool:
    """Not a word of prose: `Bearer authentication` holds no token."""
    return any(c.isdigit() for c in text) or (text != text.lower() and text != text.upper() and not text.istitle())


# Words for "no value here", and places for values: `:name`, `?`, `$1`, `${X}`, `%s`, `%(x)s`, `@p0`, `{x}`, `<x>`.
_NO_VALUE: Final = re.compile(
    r"(?i)null|none|nil|true|false|undefined|redacted|hidden|masked|filtered|\W*|\$\d+|[$:@]\w+|%[a-z]|%\(\w*\)s"
    r"|\$?\{+[^}]*\}*|<[^>]*>?|\[[^\]]*\]?"
)


def _value(text: str) -> bool:
    return not _NO_VALUE.fullmatch(text)


# Words before `=` or `:` that say a secret follows. `token` alone stands for whole words only (`max_tokens=100` is no
# secret), and needs eight characters after it.
_WORDS: Final = (
    "passw(?:or)?d|passphrase|passwd|pwd|secret|(?:api|access|account|auth|encryption|private|signing|shared_access)"
    "[_.-]?key|client[_.-]?secret"
)
_TOKENS: Final = "(?:access|auth|refresh|id|session|security|api|bearer|csrf|xsrf)?[_.-]?token|sig|signature|jwt|sid"
_GIVEN: Final = r"[\\\"']{0,4}[ \t]{0,3}(?:=>|=|:)[ \t]{0,3}\\{0,2}"  # also inside JSON inside JSON
_SCHEMES: Final = "bearer|basic|token|digest|negotiate|apikey|aws4-hmac-sha256"
_ANY: Final = r"[^\s\"'&;,\\]"
_LAST: Final = r"[^\s\"'&;,\\)}\]>]"  # `f(password=x)`: the bracket is no part of it


def _given(at_least: int) -> str:
    """A value: to the quote that ends it, or to the next separator."""
    return rf"(?:\"([^\"\\]{{{at_least},4000}})|'([^'\\]{{{at_least},4000}})|({_ANY}{{{at_least - 1},4000}}{_LAST}))"


PATTERNS: Final[tuple[SecretPattern, ...]] = (
    SecretPattern("aws_key", r"\b((?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z2-7]{16})\b"),
    SecretPattern("azure_secret", r"\b([A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})", loose="[0-9]Q~"),
    SecretPattern("gcp_key", r"\b(AIza[A-Za-z0-9_-]{35})"),
    SecretPattern("gcp_token", r"\b(ya29\.[A-Za-z0-9_-]{20,2000})"),
    SecretPattern("github_token", r"\b(gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,251})"),
    SecretPattern("gitlab_token", r"\b(gl(?:pat|dt|rt|cbt|ptt|ft|soat|oas|agent|imt)-[A-Za-z0-9_.-]{20,300})"),
    SecretPattern("slack_token", r"\b(xox[abcdeoprs]-[A-Za-z0-9-]{10,300}|xapp-[0-9]-[A-Za-z0-9-]{10,300})"),
    SecretPattern("slack_webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/_-]{20,100})"),
    SecretPattern("stripe_key", r"\b((?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{10,300}|whsec_[A-Za-z0-9+/=]{20,100})"),
    SecretPattern("anthropic_key", r"\b(sk-ant-[A-Za-z0-9_-]{20,300})"),
    SecretPattern("openai_key", r"\b(sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,300}|sk-[A-Za-z0-9]{32,100})"),
    SecretPattern("huggingface_token", r"\b(hf_[A-Za-z0-9]{30,100})"),
    SecretPattern("npm_token", r"\b(npm_[A-Za-z0-9]{36})"),
    SecretPattern("pypi_token", r"\b(pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,1000})"),
    SecretPattern("sendgrid_key", r"\b(SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64})"),
    SecretPattern("vault_token", r"\b(hv[bs]\.[A-Za-z0-9_-]{24,300})"),
    SecretPattern(
        "jwt",
        # The look-behind makes one try of a long run of such characters; with `\b` a hostile megabyte took minutes.
        r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,8000}\.eyJ[A-Za-z0-9_-]{4,8000}\.[A-Za-z0-9_-]{4,2000})",
        loose=r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4}",
    ),
    SecretPattern(
        "private_key",
        r"-----BEGIN[ A-Z0-9]{0,60}PRIVATE KEY(?: BLOCK)?-----([\s\S]+?)(?:-----END|\Z)",  # also one that was cut off
        loose=r"-----BEGIN[ A-Z0-9]{0,60}PRIVATE KEY",
    ),
    SecretPattern(
        "authorization",
        rf"(?i)\bauthorization{_GIVEN}[\"']?(?:(?:{_SCHEMES})[ \t]{{1,3}})?"
        r"([^\s\"',;\\]{4,4000})",
        _value,
    ),
    SecretPattern("bearer", r"(?i)\b(?:bearer|basic)[ \t]{1,3}([A-Za-z0-9._~+/=-]{8,4000})", _mixed),
    SecretPattern("cookie", rf"(?i)\b(?:set-)?cookie{_GIVEN}[\"']?([^\r\n\"'\\]{{4,4000}})", _value),
    SecretPattern("url_password", r"://[^\s/:@?#\"']{0,256}:([^\s/?#\"']{1,256})@", _value),  # scheme://user:password@
    SecretPattern("assignment", rf"(?i)(?:{_WORDS}){_GIVEN}{_given(1)}", _value),
    SecretPattern("token_assignment", rf"(?i)(?:^|[^A-Za-z0-9])(?:{_TOKENS}){_GIVEN}{_given(8)}", _value),
    SecretPattern("sql_password", r"(?i)\bidentified[ \t]{1,3}by[ \t]{1,3}(?:password[ \t]{1,3})?[\"']([^\"']{1,300})"),
)

CARD: Final = SecretPattern("card", r"\b([0-9](?:[ -]?[0-9]){12,18})\b", lambda text: luhn(text))

# The whole value of these attributes is a secret, whatever its form. A key is cut at `.`, `_`, `-` and in camelCase
# first: `http.request.header.x-api-key` ends in api, key; `gen_ai.usage.input_tokens` ends in tokens, which is none.
_SECRET_ENDINGS: Final = re.compile(
    r"(?:^| )(?:passw(?:or)?d|passwd|passphrase|pwd|secrets?|authorization|cookies?|credentials?|token|jwt|apikey"
    r"|(?:api|access|secret|private|signing|encryption|shared|account|auth|ssh|master) key"
    r"|(?:secret|password) (?:key|string|value|hash)|connection string|connectionstring)$"
)
_PARTS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")


def is_secret_key(key: str) -> bool:
    """Whether the value of an attribute of this key is a secret as a whole."""
    return len(key) <= 512 and _SECRET_ENDINGS.search(" ".join(_PARTS.findall(key)).lower()) is not None


# What every key of `is_secret_key` holds: RE2 looks for it in nested values, which are raw protobuf in the columns.
KEY_TRIGGER: Final = (
    r"(?i)passw|passphrase|pwd|secret|authorization|cookie|credential|token|jwt|connection[^a-z0-9]{0,3}string"
    r"|(?:api|access|private|signing|encryption|shared|account|auth|ssh|master)[^a-z0-9]{0,3}key"
)


def luhn(text: str) -> bool:
    """Whether the digits of a text have a right check digit (ISO/IEC 7812-1, annex B) and are not all the same."""
    digits = [int(c) for c in text if c.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = (sum(divmod(2 * d, 10)) for d in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_REPEATED: Final = re.compile(r"\{(\d+),\d+\}")


def loose(pattern: SecretPattern) -> str:
    """An expression for RE2 that finds whatever the pattern finds, and more. Word boundaries are left out, because it
    runs over texts that stand end to end, and upper bounds of repetitions, because RE2 takes none above 1,000.
    """
    text = pattern.loose or pattern.expression.replace(r"\b", "").replace("(?:^|[^A-Za-z0-9])", "")
    text = _REPEATED.sub(r"{\1,}", text)
    return f"(?i:{text.removeprefix('(?i)')})" if text.startswith("(?i)") else f"(?:{text})"
