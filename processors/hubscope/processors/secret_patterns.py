"""What looks like a secret: texts by their shape, attributes by their key.

Each pattern is one that RE2 and Python's `re` read alike: one pass of RE2 over whole columns finds out whether there is
anything at all, Python then replaces exactly what is the secret. The first group is the secret, or else the match.

Shapes are the vendors' published ones; gitleaks' rules (github.com/gitleaks/gitleaks, config/gitleaks.toml) and
detect-secrets' plugins were read for which of them are worth looking for, and the Collector's redactionprocessor for
what can be set. Unlike theirs, ours begin at a fixed text, because what begins anywhere (`\\w{0,50}?acme…`) costs a
hundred times more, and repetitions are bounded where something must follow them, so that no input makes them slow.
What stands behind a name (`password=`) is found in `secret_values.py`.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Final, NamedTuple

from hubscope.processors.secret_values import is_innocent_token


class SecretPattern(NamedTuple):
    """`plausible(secret)` may refuse what only looks like one. `loose` replaces the expression where RE2 reads."""

    kind: str  # what the counters call it
    expression: str
    plausible: Callable[[str], bool] | None = None
    loose: str = ""


PATTERNS: Final[tuple[SecretPattern, ...]] = (
    SecretPattern("aws_key", r"\b((?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z2-7]{16})\b"),
    SecretPattern("azure_secret", r"\b([A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,})", loose="[0-9]Q~"),
    SecretPattern("gcp_key", r"\b(AIza[A-Za-z0-9_-]{35,})"),
    SecretPattern("gcp_token", r"\b(ya29\.[A-Za-z0-9_-]{20,})"),
    SecretPattern("github_token", r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
    SecretPattern("gitlab_token", r"\b(gl(?:pat|dt|rt|cbt|ptt|ft|soat|oas|agent|imt)-[A-Za-z0-9_.-]{20,})"),
    SecretPattern("slack_token", r"\b(xox[abcdeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,})"),
    SecretPattern("slack_webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9+/_-]{20,})"),
    SecretPattern("stripe_key", r"\b((?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{20,})"),
    SecretPattern("anthropic_key", r"\b(sk-ant-[A-Za-z0-9_-]{20,})"),
    SecretPattern("openai_key", r"\b(sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,}|sk-[A-Za-z0-9]{32,})"),
    SecretPattern("huggingface_token", r"\b(hf_[A-Za-z0-9]{30,})"),
    SecretPattern("npm_token", r"\b(npm_[A-Za-z0-9]{36,})"),
    SecretPattern("pypi_token", r"\b(pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,})"),
    SecretPattern("sendgrid_key", r"\b(SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,})"),
    SecretPattern("vault_token", r"\b(hv[bs]\.[A-Za-z0-9_-]{24,})"),
    SecretPattern(
        "jwt",
        # The look-behind makes one try of a long run of such characters; with `\b` a hostile megabyte took minutes.
        r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,})",
        loose=r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4}",
    ),
    SecretPattern(
        "private_key",
        r"-----BEGIN[ A-Z0-9]{0,60}PRIVATE KEY(?: BLOCK)?-----([\s\S]+?)(?:-----END|\Z)",  # also one that was cut off
        loose=r"-----BEGIN[ A-Z0-9]{0,60}PRIVATE KEY",
    ),
    SecretPattern(
        "vendor_token",  # Groq, Replicate, LangSmith, xAI, Perplexity, OpenRouter, Databricks, DigitalOcean, Docker,
        # Grafana, Atlassian, Shopify, Google's OAuth clients
        r"\b(gsk_[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{30,}|lsv2_(?:pt|sk)_[A-Za-z0-9_]{30,}|xai-[A-Za-z0-9_-]{40,}"
        r"|pplx-[A-Za-z0-9]{40,}|sk-or-v1-[A-Za-z0-9]{40,}|dapi[a-f0-9]{32}[a-f0-9-]*|do[opr]_v1_[a-f0-9]{40,}"
        r"|dckr_[po]at_[A-Za-z0-9_-]{20,}|gl(?:sa|c)_[A-Za-z0-9+/=_]{20,}|ATATT3[A-Za-z0-9_=-]{20,}"
        r"|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32,}|GOCSPX-[A-Za-z0-9_-]{20,})",
    ),
    SecretPattern(
        "docker_auth",
        r"\"auth\\*\"\s{0,9}:\s{0,9}\\*\"([A-Za-z0-9+/]{8,}={0,2})",
        lambda text: _is_basic(text),
    ),
    SecretPattern("telegram_token", r"(?<![0-9])([0-9]{8,10}:AA[A-Za-z0-9_-]{32,})", loose="[0-9]:AA[A-Za-z0-9_-]{32}"),
    SecretPattern("discord_webhook", r"discord(?:app)?\.com/api/webhooks/[0-9]{10,25}/([A-Za-z0-9_-]{40,})"),
)

CARD: Final = SecretPattern("card", r"\b([0-9](?:[ -]?[0-9]){12,18})\b", lambda text: luhn(text))

# The whole value of these attributes is a secret, whatever its form. A key is cut at `.`, `_`, `-` and in camelCase
# first: `http.request.header.x-api-key` ends in api, key; `gen_ai.usage.input_tokens` ends in tokens, which is none.
_KEYS: Final = (
    "api|access|secret|private|signing|encryption|shared|account|auth|ssh|master|session|license|subscription"
)
_SECRET_ENDINGS: Final = re.compile(
    r"(?:[a-z0-9]*(?:passw(?:or)?d|passwd|passphrase|passcode|secret)"  # run together: dbpassword, clientsecret
    r"|(?:^| )(?:[a-z0-9]*pwd|secrets|authorization|cookies?|credentials?|token|jwt|otp|(?<!gpio )pin"
    rf"|[a-z0-9]*(?:{_KEYS}) ?key|(?:access|refresh|auth|oauth|api|id|session|security|bearer|csrf|xsrf|bot)token"
    r"|(?:secret|password) (?:key|string|value|hash)|connection ?string"
    r"|basic ?auth|[a-z0-9]*(?<!by)(?<!com)(?<!tres)(?<!sur)(?<!over)(?<!under)(?<!band)(?<!render )(?<!boarding )"
    r"(?<!first )(?<!second )(?<!low )(?<!high )(?<!band )(?<!by )(?<!test )(?<!tests )(?<!single )(?<!multi )pass)"
    r"|^auth)$"
)
_BEARER_KEY: Final = re.compile(r"(?i)(?:[\w.-]*[._-])?bearer")  # not the end of `Authorization: Bearer ****`
_PARTS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")


def is_secret_key(key: str) -> bool:
    """Whether the value of an attribute of this key is a secret as a whole."""
    if len(key) > 512:
        return False
    words = " ".join(_PARTS.findall(key)).lower()
    if _BEARER_KEY.fullmatch(key):
        return True
    return _SECRET_ENDINGS.search(words) is not None and not is_innocent_token(words.replace(" ", "_"))


# What every key of `is_secret_key` holds: RE2 looks for it in nested values, which are raw protobuf in the columns.
KEY_TRIGGER: Final = (
    rf"(?i)pass|pwd|secret|authorization|cookie|credential|token|jwt|bearer|connection[^a-z0-9]{{0,3}}string"
    rf"|(?:^|[^a-z])auth(?:[^a-z]|$)|basic[^a-z0-9]{{0,3}}auth"
    rf"|(?:pin|otp)(?:[^a-z]|$)|(?:{_KEYS})[^a-z0-9]{{0,3}}key"
)


def _is_basic(text: str) -> bool:
    """Whether base64 holds `user:password`."""
    try:
        return b":" in b64decode(text, validate=True)
    except ValueError:
        return False


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
    text = pattern.loose or pattern.expression.replace(r"\b", "")
    text = _REPEATED.sub(r"{\1,}", text)
    return f"(?i:{text.removeprefix('(?i)')})" if text.startswith("(?i)") else f"(?:{text})"
