"""Where the secret behind a name begins and ends: `password=…`, `Authorization: …`, `scheme://user:…@`, `--token …`.

A name is found by an expression, the end of what follows by reading on, because no expression knows quotes, escapes
and brackets. Where the end cannot be told (a quote that is never closed, or one too many) all to the end of the text
is the secret: a mask with half of a password beside it would be worse than a text that is cut short.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple


class Secret(NamedTuple):
    """`text[start:end]` is to be replaced."""

    kind: str
    start: int
    end: int


# Names after which whatever stands is a secret, wherever they stand in a longer one (`DB_PASSWORD`, `clientsecret`).
WORDS: Final = (
    "passw(?:or)?d|passphrase|passcode|passwd|pwd|secret"
    "|api[ _.-]?key|(?:access|account|auth|encryption|private|signing|shared_access|master|ssh|session|license"
    "|subscription)[_.-]?key"
)
# Names that must begin where a word begins, with the least length of a secret (`token=3` and `sid=7` are none).
_TOKENS: Final = (
    "(?:access|auth|refresh|id|session|security|api|bearer|csrf|csrfmiddleware|xsrf)?[_.-]?token|sig|signature|jwt|sid"
)
_ONLY_EQUALS: Final = "(?:php)?sessid|j?sessionid|credentials"  # `credentials: 'include'` is JavaScript
_SHORT: Final = "(?:db|database|user|smtp|mail|ssh|ftp|root|admin|proxy|redis|pg|mysql)?[_.-]?pass|pin|otp|psk"
_SUFFIX: Final = (
    r"(?:[_-]?(?:value|string|hash|key(?:[_-]?base)?|confirm(?:ation)?|[0-9]{1,2})"
    r"|s(?=(?:\\*[\"'`])?\s{0,9}[:=]\s{0,9}\[))?"  # `{"passwords": ["…"]}`; `passwords: 3` is a number of them
)
_HEAD: Final = re.compile(
    r"(?P<command_password>\bsshpass\s{1,8}-p[ ]?|\bmysql(?:dump|admin)?(?=\s)[^\n]{0,100}?\s-p(?=[^\s-])"
    r"|\bredis-cli(?=\s)[^\n]{0,100}?\s-a[ ]?(?=[^\s-])|\bldap[a-z]{3,9}(?=\s)[^\n]{0,100}?\s-w[ ]?(?=[^\s-])"
    r"|\b(?:docker|podman|nerdctl|helm)\s{1,4}(?:registry\s{1,4})?login(?=\s)[^\n]{0,100}?\s-p[ ]?(?=[^\s-])"
    r"|\bmachine\s[^\n]{1,200}?\spassword\s{1,9}(?=\S)"
    r"|\bcurl\s[^\n]{0,200}?(?:(?<=\s)-u[ ]?|--(?:proxy-)?user[ =])[\"']?[^\s:\"']{0,100}:)"
    rf"|(?P<authorization>\bauthorization)|(?P<cookie>\b(?:set-)?cookie)|(?P<assignment>(?:{WORDS}){_SUFFIX})"
    rf"|(?<![A-Za-z0-9])(?:(?P<token_assignment>{_TOKENS})|(?P<only_equals>{_ONLY_EQUALS})|(?P<short_assignment>{_SHORT}))(?![A-Za-z0-9])"
    r"|\b(?P<bearer>bearer|basic)[ \t]+(?=[A-Za-z0-9._~+/=-]{8})"
    r"|(?P<url_password>://)|(?P<sql_password>\bpragma\s{1,8}(?:hex)?(?:re)?key\s{0,8}=\s{0,8}"
    r"|\bidentified\s{1,8}(?:with\s{1,8}[\w'\"`]{1,60}\s{1,8})?(?:by|as)\s{1,8}(?:password\s{1,8})?)",
    re.IGNORECASE | re.ASCII,
)
# What RE2 looks for: all that the expression above can lead to, and more.
LOOSE: Final = (
    rf"(?i:authorization|cookie|{WORDS}|(?:token|sig|signature|jwt|sid|sessid|sessionid|credentials|pass|pin|otp|psk)\s*[\\\"'`%&=:>,!\]-]"
    r"|-(?:token|pass|pin|otp|jwt)\s|(?:bearer|basic)[ \t]+[A-Za-z0-9._~+/=-]{8}|://[^\s@]+@|identified\s+(?:by|with)\s"
    r"|pragma\s+(?:hex)?(?:re)?key|redis-cli\s|ldap[a-z]+\s|(?:docker|podman|nerdctl|helm)\s+(?:registry\s+)?login\s"
    r"|sshpass\s|mysql[a-z]*\s|curl\s)"
)

_CLOSE: Final = r"(?:\\*[\"'`]|%22|%27|&quot;|&#3[49];|\]){0,4}"
_BLANK: Final = r"(?:[\s\u00a0]|\\[nrt]){0,60}"
_IS: Final = re.compile(
    rf"{_CLOSE}{_BLANK}(===?|!==?|=>|:=|->|=|::(?=[ \t])|:|：|＝|%3d|%3a|%253d){_BLANK}", re.IGNORECASE | re.ASCII
)
_PAIR: Final = re.compile(
    rf"{_CLOSE}\s{{0,9}},?\s{{0,9}}(?:\\*[\"'])?value(?:\\*[\"'])?\s{{0,9}}[:=]\s{{0,9}}", re.IGNORECASE | re.ASCII
)
_PREFIX: Final = r"(?:[bBuUrRfFnNxXeE]{1,2}|[uU]&|\$|@)?"
_OPENING: Final = re.compile(
    rf"{_PREFIX}(?:(\"\"\"|'''|''(?=[^\s,;)}}\]&'])|&quot;|&#3[49];|&apos;|%22|%27|“|‘)|(\\*)([\"'`]))", re.ASCII
)
_CLOSED_BY: Final = {"“": "”", "‘": "’"}
_NEXT_IN_LIST: Final = re.compile(rf"{_CLOSE}\s{{0,9}},\s{{0,9}}(?={_PREFIX}\\*[\"'`])", re.ASCII)
_EMPTY_OPTION: Final = re.compile(rf"=\\*[\"'`]\s{{0,9}},\s{{0,9}}(?={_PREFIX}\\*[\"'`])", re.ASCII)
_QUOTE_FOLLOWS: Final = re.compile(
    rf"{_CLOSE}(?:{_BLANK}\(\s{{0,9}}|(?:\s|\\[nrt]){{1,60}})(?={_PREFIX}\\*[\"'`])", re.ASCII
)
# Statements: `password LIKE '…'`, `api_key IN ('…')`, `SET PASSWORD FOR 'bob'@'%' = '…'`, `(TYPE S3, SECRET '…')`.
_COMPARED: Final = re.compile(
    rf"{_CLOSE}\s{{1,9}}(?:not\s{{1,9}})?(?:(?:i|r)?like|regexp|in)\s{{0,9}}(?=\(?\s{{0,9}}{_PREFIX}\\*[\"'])",
    re.IGNORECASE | re.ASCII,
)
_FOR: Final = re.compile(
    rf"\s{{1,9}}for\s{{1,9}}[^\n=;]{{1,150}}=\s{{0,9}}(?={_PREFIX}\\*[\"'])", re.IGNORECASE | re.ASCII
)
_OPTION: Final = re.compile(r"[,(]\s{0,20}[\w.]*\Z", re.ASCII)
_OPTION_VALUE: Final = re.compile(rf"\s{{1,9}}(?={_PREFIX}\\*[\"'])", re.ASCII)
_DOLLARS: Final = re.compile(rf"{_CLOSE}(?:\s{{0,9}}[=:]\s{{0,9}}|\s{{1,9}})(\$(?:[A-Za-z_]\w{{0,60}})?\$)", re.ASCII)
_USER_STATEMENT: Final = re.compile(r"\b(?:(?:create|alter)\s{1,8}(?:user|role)|grant)\s[^;]{1,200}\Z", re.IGNORECASE)
_FORM_PART: Final = re.compile(r"name=\"[\w.-]*\Z", re.IGNORECASE | re.ASCII)
_FORM_VALUE: Final = re.compile(r"[\w.-]{0,60}\"(?:\r?\n){2}", re.ASCII)
_FORM_END: Final = re.compile(r"\r?\n--|\Z")
_YAML_BLOCK: Final = re.compile(r"[|>][+-]?[0-9]?[ \t]{0,9}\r?\n([ \t]{1,40})(?=\S)", re.ASCII)
# `{"value": "…", "name": "API_KEY"}`: the value stands before the name.
_NAMED: Final = re.compile(r"(?:name|key)\\*[\"']\s{0,9}:\s{0,9}\\*[\"'][\w.-]*\Z", re.IGNORECASE | re.ASCII)
_VALUE_BEFORE: Final = re.compile(
    r"value\\*[\"']\s{0,9}:\s{0,9}(?P<open>\\*[\"'])(?P<value>[^\"']{1,300}?)(?P=open)\s{0,9},\s{0,9}\\*[\"']"
    + _NAMED.pattern,
    re.IGNORECASE | re.ASCII,
)
_ARGUMENT: Final = re.compile(r"\s{1,9}(?=[^\s-])", re.ASCII)
_FIRST_OF_PAIR: Final = re.compile(r"[\[(]\s*[bB]?\\*[\"'][\w.-]*\Z|-[\w-]*\Z", re.ASCII)
_TAG: Final = re.compile(r"(?:<|&lt;|%3C)[\w.-]*:?[\w.-]*\Z", re.ASCII | re.IGNORECASE)
_TAG_END: Final = re.compile(r"(?:[\s][^<>]{0,200})?(?:>|&gt;|%3E)\s{0,60}", re.ASCII | re.IGNORECASE)
_KEY_BEFORE: Final = re.compile(r"[\w.-]*\Z", re.ASCII)

# What may follow a quote that closes a value; after anything else it is a part of the secret.
_ENDS: Final = re.compile(r"\Z|[\s,;:)}\]&>|+.\"'`\\]", re.ASCII)
_HEADER_ENDS: Final = re.compile(r"\Z|[\s,)}\]\"'`\\]", re.ASCII)
_QUOTES: Final = re.compile(r"(?<!\\)(\\*)([\"'`])")
_STOP: Final = re.compile(r"\s|[;,&]|%26|(?<!\\)\\+[nrt]|(?<!\\)\\*[\"'`]|\Z", re.ASCII)
_LINE_STOP: Final = re.compile(r"[\r\n]|(?<!\\)\\+[nr]|(?<!\\)\\*[\"'`]|\Z")
_NO_BLANK_STOP: Final = re.compile(r"\s|(?<!\\)\\+[nrt]|(?<!\\)\\*[\"'`]|\Z", re.ASCII)
# After `;`, `,` or `&` the value goes on unless another name or nothing follows: `password=ab;cd` is one secret.
_NEXT: Final = re.compile(
    r"\Z|\s|\\*[\"']?[A-Za-z_][\w.\-\[\] ]{0,60}\\*[\"']?\s{0,9}(?:=|:|%3D)|\\*[\"'][,)}\]\s]|\\*[\"']\Z", re.ASCII
)
_BRACKETED: Final = re.compile(r"(?:[A-Za-z_][\w.]{0,80})?[\[({]", re.ASCII)
_BRACKETS: Final = re.compile(r"(?<!\\)\\*[\"'`]|[\[({\])}]")
_LAST_BRACKETS: Final = re.compile(r"[)\]}>]{1,5}\Z")

_NAMES_SECRET: Final = r"\w*(?:pass|pwd|secret|token|key|cred|auth|sig|hash|jwt|cookie|value|param)\w*"
# Places for values and words for "none": only what is certain, `{hunter}` and `$ecret` are taken for secrets.
_NO_VALUE: Final = re.compile(
    rf"(?:null|none|nil|true|false|undefined|redacted|hidden|masked|filtered|is|[?*.-]+|\$\d+|@p\d+|:\d+"
    rf"|%[a-z]|%\(\w*\)s|[$:@]{_NAMES_SECRET}|(?-i:\$[A-Z_]+)|\$\{{\w*\}}|\{{+ ?(?:\w+\.)?(?:{_NAMES_SECRET}|\d?) ?\}}+"
    rf"|<[\w -]*(?:{_NAMES_SECRET}|redacted|hidden|masked|none)[\w -]*>"
    r"|\[(?:redacted|filtered|hidden|masked|removed)?\]|\(\))(?=[\s\"'`,;&)\]}\\]|\Z)",
    re.IGNORECASE | re.ASCII,
)
# Code that fetches a secret, and columns that are compared: `EXCLUDED.password`, `b.token_id`, `os.environ["X"]`.
_REFERENCE: Final = re.compile(
    rf"(?:[A-Za-z_]\w{{0,40}}\.(?:[A-Za-z_]\w{{0,40}}\.)?{_NAMES_SECRET}"
    r"|(?:excluded|inserted|deleted|new|old|self|form|request|config|settings|args)\.[A-Za-z_][A-Za-z_.]{0,60}"
    r"|[A-Za-z_][A-Za-z_.]{0,60}\(\)"
    r"|(?:[A-Za-z_]{1,20}\.)?(?:environ|env|getenv|environ\.get|config|settings|secrets|st\.secrets)"
    r"[\[(][\"'][A-Za-z_]{1,60}[\"'][\])]|(?:Depends|Header|Query|Cookie|Security)\(\w{0,60}\))(?=[\s,;)&\"'\]}]|\Z)",
    re.IGNORECASE | re.ASCII,
)
_TYPE: Final = re.compile(
    r"(?:typing\.)?(?:(?:Optional|Union|Annotated|list|List|dict|Dict)\[[\w., |\[\]]{0,80}\]|str|string|bytes|int"
    r"|number|bool|boolean|any|Any|SecretStr|String|Text|object)(?:\s?\|\s?\w{1,30})*(?=\s|[,)=;}\]?]|\Z)\s{0,9}(?P<is>=(?!=)\s{0,9})?",
    re.ASCII,
)
_ANNOTATED: Final = re.compile(r"[\w.\[\]|<>]{1,100}\s{1,9}=(?!=)\s{0,9}", re.ASCII)
# `authorization: failed`, `Cookie: disabled`, `the secret: work hard`, `signature: Signature object`
_PROSE: Final = re.compile(r"[A-Za-z]?[a-z]{1,9}(?=[\s.,;)]|\Z)", re.ASCII)
_IN_PROSE: Final = frozenset({"authorization", "cookie", "secret", "signature", "sig", "pin", "otp", "pass", "token"})
_SCHEME: Final = re.compile(
    r"(bearer|basic|token|negotiate|ntlm|apikey)[ \t]+|([A-Za-z][\w-]{2,30})[ \t]+(?=\w+=|\*{4}|hash:)", re.I | re.A
)
_PROSE_OF_SCHEME: Final = re.compile(r"(?:token|auth\w*|scheme|header|required|missing|failed|is|was)\b", re.I | re.A)
_INNOCENT_TOKEN: Final = re.compile(
    r"(?:^|[_.-]|(?<=[a-z]))(?:eos|bos|unk|sep|cls|mask|pad|stop|cancell?ation|pagination|page|next|continuation|first"
    r"|last|output|input|prompt|completion|gen_ai)[_.-]?token$",
    re.IGNORECASE,
)
_USER: Final = re.compile(r"[^\s/:@?#]*")
_PORT: Final = re.compile(r"\d{1,5}[/?#]")  # `https://host:8080/a@b` has no user
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")
_PATH: Final = re.compile(r"[\"']?(?:/|~|[A-Za-z]:[\\/])")
_MASKS: Final = re.compile(r"\*{4}|hash:[a-z2-7]{16}")


def is_innocent_token(name: str) -> bool:
    """Whether the token of this name is a word's, or a place in a list: `eos_token`, `next_page_token`."""
    return _INNOCENT_TOKEN.search(name) is not None


def is_path(value: str) -> bool:
    """Whether what stands under `pwd` is a working directory."""
    return _PATH.match(value) is not None


def secrets(text: str) -> Iterator[Secret]:
    """The secrets behind names, from left to right; none overlap. Linear in the length of the text."""
    reading, at = _Reading(text), 0
    while (head := _HEAD.search(text, at)) is not None:
        before, (found, after) = at, _behind(reading, head)
        at = after
        if found is not None and before <= found.start < found.end:
            yield found


class _Reading:
    """A text and where its quotes stand, which is found out once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.url_end = self.last_at = -1  # of the last run without blanks that has a `://`: its end, and its last @
        self._quotes: dict[tuple[str, int], list[int]] | None = None
        self._closing: dict[tuple[str, int], list[int]] = {}

    def _all(self) -> dict[tuple[str, int], list[int]]:
        if self._quotes is None:
            self._quotes = defaultdict(list)
            for found in _QUOTES.finditer(self.text):
                self._quotes[found[2], len(found[1])].append(found.start(2))
        return self._quotes

    def encloses(self, quote: str, at: int) -> bool:
        """Whether a quote (with its backslashes) was opened before, and not closed."""
        places = self._all().get((quote[-1], len(quote) - 1), ())
        return bisect_left(places, at) % 2 == 1

    def in_quotes(self, at: int) -> bool:
        return any(self.encloses(quote, at) for quote in ('"', "'", "`"))

    def closing(self, quote: str, slashes: int) -> list[int]:
        """Where a string that began with so many backslashes and a quote can end: in JSON inside JSON a string that
        begins with `\\"` ends with 1, 5, 9 … backslashes before the quote, and 3, 7 … belong to it.
        """
        key = (quote, slashes)
        if key not in self._closing:
            places = (p for (q, n), p in self._all().items() if q == quote and n % (2 * slashes + 2) == slashes)
            self._closing[key] = sorted(place for some in places for place in some)
        return self._closing[key]

    def quoted_end(self, opened: int, quote: str, slashes: int) -> int:
        places, end = self.closing(quote, slashes), len(self.text)
        number = bisect_left(places, opened)
        while number < len(places):
            place = places[number]
            if place > opened and self.text.startswith("\\" * slashes + quote, place + 1):
                number += 2  # a doubled quote is one that belongs to the value
            elif _ENDS.match(self.text, place + 1):
                return place - slashes if (len(places) - number) % 2 else end  # a quote too many: which one ends it?
            else:
                number += 1
        return end

    def end(self, at: int, stops: re.Pattern[str], ends: re.Pattern[str] = _ENDS) -> int:
        """The end of a value that is in no quotes of its own."""
        place = at
        while (stop := stops.search(self.text, place)) is not None:
            found = stop[0]
            if found in (";", ",", "&", "%26"):
                goes_on = _NEXT.match(self.text, stop.end()) is None
            elif found[-1:] in ("'", '"', "`"):
                goes_on = not (self.encloses(found, at) and ends.match(self.text, stop.end()))
            else:
                goes_on = found.startswith("\\") and not (len(found) == 2 and self.in_quotes(at))
            if not goes_on:
                return stop.start()
            place = stop.end()
        return len(self.text)

    def bracket_end(self, at: int) -> int:
        """Behind the bracket that closes the first one from here on; quotes in it are skipped."""
        depth, place = 0, at
        while (found := _BRACKETS.search(self.text, place)) is not None:
            place, mark = found.end(), found[0]
            if mark[-1] in "\"'`":
                if self.encloses(mark, at):
                    return found.start()
                places = self.closing(mark[-1], len(mark) - 1)
                number = bisect_left(places, place)
                if number == len(places):
                    return len(self.text)
                place = places[number] + 1
            else:
                depth += 1 if mark in "[({" else -1
                if depth == 0:
                    return place
        return len(self.text)

    def value(self, at: int) -> tuple[int, int, bool]:
        """Where the value that begins here begins and ends, and whether it is quoted."""
        text = self.text
        opening = _OPENING.match(text, at)
        closes = opening is not None and opening[3] is not None and opening.start(2) == at
        if opening is not None and closes:  # a quote that was opened before the name closes it here: `"password="`
            closes = self.encloses(opening[2] + opening[3], at) and _HEADER_ENDS.match(text, opening.end()) is not None
        if opening is not None and not closes:
            start = opening.end()
            if opening[3]:
                return start, self.quoted_end(start, opening[3], len(opening[2])), True
            last = text.rfind if opening[1] == "''" else text.find
            end = last(_CLOSED_BY.get(opening[1], opening[1]), start)
            return start, (end if end >= 0 else len(text)), True
        bracket = _BRACKETED.match(text, at)
        least = self.bracket_end(at) if bracket is not None else at
        end = self.end(least, _STOP)
        trailing = _LAST_BRACKETS.search(text, max(least, end - 5), end)
        return at, trailing.start() if trailing is not None else end, False


def _behind(reading: _Reading, head: re.Match[str]) -> tuple[Secret | None, int]:
    """The secret behind a name, and where to look on."""
    kind, text = head.lastgroup or "", reading.text
    if kind == "url_password":
        return _in_url(reading, head.end())
    if kind == "bearer":
        word = _BEARER.match(text, head.end())
        if word is None or not _is_token(word[0]):
            return None, head.end()
        end = reading.end(head.end(), _STOP)
        return Secret(kind, head.end(), end), end
    if kind in ("sql_password", "command_password"):
        start, end, quoted = reading.value(head.end())
        if kind == "command_password" and not quoted:
            end = reading.end(start, _NO_BLANK_STOP)
        is_key = kind == "sql_password" and not quoted
        if is_key and _USER_STATEMENT.search(text[max(0, head.start() - 250) : head.start()]) is None:
            return None, head.end()  # prose: identified by its name
        return _meant(kind, text, start, end), max(end, head.end())
    name = text[max(0, head.start() - 60) : head.end()]
    before = text[max(0, head.start() - 60) : head.start()]
    if kind == "token_assignment" and is_innocent_token((_KEY_BEFORE.search(name) or head)[0]):
        return None, head.end()
    if (elsewhere := _not_behind(text, head, kind, before)) is not None:
        return elsewhere, max(elsewhere.end, head.end())
    at, colon, tag = _value_begins(reading, head, before)
    if at < 0 or (kind == "only_equals" and (colon or is_path(text[at : at + 4]))):
        return None, head.end()
    if tag:
        end = min(
            (place for place in (text.find(m, at) for m in ("</", "&lt;/", "%3C/", "%3C%2F")) if place >= 0),
            default=len(text),
        )
        return _meant(kind, text, at, end), max(end, head.end())
    if head[0].lower() == "pwd" and is_path(text[at : at + 4]):
        return None, head.end()
    if kind in ("authorization", "cookie"):
        return _in_header(reading, kind, at, colon)
    return _assigned(reading, head, kind, at, colon)


def _not_behind(text: str, head: re.Match[str], kind: str, before: str) -> Secret | None:
    """The secret of forms in which it does not simply follow its name."""
    is_quoted = text[head.end() : head.end() + 1] in ("\\", '"', "'")
    if is_quoted and _NAMED.search(before) is not None:
        found = _VALUE_BEFORE.search(text, max(0, head.start() - 500), head.start())
        return _meant("assignment", text, *found.span("value")) if found is not None else None
    if kind != "assignment":
        return None
    if (found := _DOLLARS.match(text, head.end())) is not None:
        end = text.find(found[1], found.end())
        return Secret(kind, found.end(), end if end >= 0 else len(text))
    if (found := _FORM_VALUE.match(text, head.end())) is not None and _FORM_PART.search(before):
        return Secret(kind, found.end(), _FORM_END.search(text, found.end()).start())  # type: ignore[union-attr]  # \Z
    return None


def _value_begins(reading: _Reading, head: re.Match[str], before: str) -> tuple[int, bool, bool]:
    """Where the value of a name begins (-1: there is none), whether a colon is before it, whether it is XML."""
    text, at, word = reading.text, head.end(), head[0].lower()
    if (found := _EMPTY_OPTION.match(text, at)) is not None and _FIRST_OF_PAIR.search(before):
        return found.end(), False, False
    if (found := _IS.match(text, at)) is not None:
        blank = text[found.end(1) : found.end()]
        if "\n" in blank and not blank.endswith((" ", "\t")) and re.match(r"[\w.-]+\s*[:=]", text[found.end() :][:80]):
            return -1, False, False  # an empty value, and the next line's name
        return found.end(), found[1].lower() in (":", "%3a"), False
    if (found := _TAG_END.match(text, at)) is not None and _TAG.search(before):
        return found.end(), False, True
    if (found := _PAIR.match(text, at)) is not None and found[0][:1] in ("\\", '"', "'"):
        return found.end(), False, False
    if (
        (found := _NEXT_IN_LIST.match(text, at)) is not None
        and found[0][:1] in ("\\", '"', "'")
        and _FIRST_OF_PAIR.search(before)
    ):
        return found.end(), False, False
    if (found := _COMPARED.match(text, at) or (_FOR.match(text, at) if word.startswith("pass") else None)) is not None:
        return found.end(), False, False
    if (found := _OPTION_VALUE.match(text, at)) is not None and _OPTION.search(before):
        return found.end(), False, False
    if word.startswith(("pass", "pwd")) and (found := _QUOTE_FOLLOWS.match(text, at)) is not None:
        return found.end(), False, False
    if re.search(r"(?:^|[\s\"'])--?[\w-]*\Z", before) and (found := _ARGUMENT.match(text, at)) is not None:
        return found.end(), False, False
    return -1, False, False


def _assigned(reading: _Reading, head: re.Match[str], kind: str, at: int, colon: bool) -> tuple[Secret | None, int]:
    text, word = reading.text, head[0].lower()
    least = {"token_assignment": 8, "only_equals": 8, "short_assignment": 4}.get(kind, 1)
    kind = "assignment" if kind in ("short_assignment", "only_equals") else kind
    whole = False
    if colon:
        if (block := _YAML_BLOCK.match(text, at)) is not None:
            ends = re.compile(rf"\n(?!{block[1]}|[ \t]*\r?\n)").search(text, block.end())
            end = ends.start() if ends is not None else len(text)
            return Secret(kind, block.end(), end), end
        if (annotation := _TYPE.match(text, at)) is not None:
            if annotation["is"] is None:
                return None, annotation.end()
            at = annotation.end()
        elif (annotated := _ANNOTATED.match(text, at)) is not None:
            whole = True
        if word in _IN_PROSE and text[at - 1].isspace() and _PROSE.match(text, at):
            return None, at
    if (none := _NO_VALUE.match(text, at) or _REFERENCE.match(text, at)) is not None:
        return None, max(head.end(), none.end() - 1)
    start, end, quoted = reading.value(annotated.end() if whole and annotated is not None else at)
    if whole:
        start, end = at, min(len(text), end + quoted)
    elif not quoted and word == "passphrase":
        end = reading.end(start, _LINE_STOP)
    if end - start < least or (quoted and _NO_VALUE.fullmatch(text, start, end)):
        return None, max(end, head.end())
    return Secret(kind, start, end), max(end, head.end())


def _in_header(reading: _Reading, kind: str, at: int, colon: bool) -> tuple[Secret | None, int]:
    text = reading.text
    if _NO_VALUE.match(text, at) or _TYPE.match(text, at) or _REFERENCE.match(text, at):
        return None, at
    start, end, quoted = reading.value(at)
    scheme = _SCHEME.match(text, start) if kind == "authorization" else None
    if scheme is not None:
        start = scheme.end()
    if not quoted:
        if colon and (_PROSE if scheme is None else _PROSE_OF_SCHEME).match(text, start):
            return None, start
        single = not colon or (scheme is not None and scheme[1] is not None)
        end = reading.end(start, _STOP) if single else reading.end(start, _LINE_STOP, _HEADER_ENDS)
    return (Secret(kind, start, end) if end - start >= 4 else None), max(end, at)


def _in_url(reading: _Reading, at: int) -> tuple[Secret | None, int]:
    """`user:password@` or a lone token: to the last @, because passwords hold `/`, `#` and `@` too."""
    text = reading.text
    if at >= reading.url_end:
        reading.url_end = reading.end(at, _NO_BLANK_STOP)
        reading.last_at = text.rfind("@", at, reading.url_end)
    last = reading.last_at
    if last < at:
        return None, at
    user = _USER.match(text, at)
    colon = user.end() if user is not None else at
    if not text.startswith(":", colon) or colon + 1 == last:
        token = text[at:colon]
        if text[colon : colon + 1] in ("@", ":") and len(token) >= 16 and re.search(r"\d", token):
            return Secret("url_password", at, colon), colon
        return None, at
    if _PORT.match(text, colon + 1):
        return None, at
    return _meant("url_password", text, colon + 1, last), last


def _is_token(text: str) -> bool:
    """Not a word of prose: `Bearer authentication` holds no token."""
    mixed = text != text.lower() and text != text.upper() and not text.istitle()
    return len(text) >= 16 or mixed or any(c.isdigit() for c in text)


def _meant(kind: str, text: str, start: int, end: int) -> Secret | None:
    return None if _NO_VALUE.fullmatch(text, start, end) else Secret(kind, start, end)


def is_replaced(secret: str) -> bool:
    """Whether all that says something in it was replaced before."""
    rest, masks = _MASKS.subn("", secret)
    return masks > 0 and not re.search(r"\w", rest)
