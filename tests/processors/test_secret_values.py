"""Secrets behind names: no piece of one stays beside its mask, and what only looks like one is left."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from html import escape
from typing import Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from hubscope.collector.log.wal import Record, Signal
from hubscope.collector.otlp.decode import decode_arriving
from hubscope.processors.options import RedactionOptions
from hubscope.processors.redaction import Redaction
from hubscope.processors.secret_patterns import is_secret_key

REDACTION: Final = Redaction(RedactionOptions(), b"key")

_PLAIN: Final = "".join(chr(c) for c in range(33, 127) if chr(c) not in ";,&")
_LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def _scrub(text: str) -> str:
    """What is stored; all that is replaced must be found by RE2 too, and replacing it again does nothing."""
    after = REDACTION._scrubbed(text)[0]
    if after != text:
        found = pc.match_substring_regex(pa.array([text.encode("utf-8", "replace")], pa.binary()), REDACTION._loose)
        assert found.to_pylist() == [True]
        assert REDACTION._scrubbed(after)[0] == after
    return after


def _sql(secret: str) -> str:
    return "'" + secret.replace("'", "''") + "'"


# Name -> a text that holds a secret, written as that form demands it.
QUOTED: Final[dict[str, Callable[[str], str]]] = {
    "json": lambda s: json.dumps({"user": "ada", "password": s, "port": 5432}),
    "json in json": lambda s: json.dumps({"body": json.dumps({"password": s, "a": [1]})}),
    "json in json in json": lambda s: json.dumps([json.dumps({"b": json.dumps({"secret": s})})]),
    "json map": lambda s: json.dumps({"password": {"value": s}, "a": 1}),
    "json list": lambda s: json.dumps({"password": [s, "b"], "a": 1}),
    "json pair": lambda s: json.dumps({"name": "password", "value": s}),
    "repr": lambda s: f"Config(user='ada', password={s!r}, port=1)",
    "repr of bytes": lambda s: repr({b"password": s.encode()}),
    "SecretStr": lambda s: f"Config(password=SecretStr({s!r}), port=1)",
    "annotated": lambda s: f"password: str = {s!r}",
    "optional": lambda s: f"def f(password: str | None = {s!r}, port: int = 1)",
    "other type": lambda s: f"password: MyOwn = {s!r}",
    "typescript": lambda s: f"const password: string = {json.dumps(s)};",
    "go": lambda s: f"password := {json.dumps(s)}\nport := 1",
    "f-string": lambda s: f"password = f{s!r}",
    "pair": lambda s: f"[('user', 'ada'), {('password', s)!r}]",
    "arguments": lambda s: json.dumps(["mysql", "--password", s]),
    "arguments with =": lambda s: json.dumps(["mysql", "--password=", s, "-h"]),
    "T-SQL": lambda s: f"ALTER LOGIN sa WITH PASSWORD = N{_sql(s)}",
    "PostgreSQL": lambda s: f"ALTER ROLE app WITH PASSWORD {_sql(s)} VALID UNTIL 'infinity'",
    "encrypted": lambda s: f"CREATE USER app WITH ENCRYPTED PASSWORD {_sql(s)}",
    "set password": lambda s: f"SET PASSWORD FOR x = PASSWORD({_sql(s)})",
    "shell": lambda s: f"export DB_PASSWORD={shlex.quote(s)}" if "'" not in s else "",
    "argv": lambda s: f"mysql --password {shlex.quote(s)} -h db" if "'" not in s and s[:1] != "-" else "",
    "XML": lambda s: f"<db><password>{escape(s)}</password></db>",
    "url-encoded": lambda s: f"next=%2Fa%3Fpassword%3D{quote(s, safe='')}%26b%3D1",
    "unclosed": lambda s: f'password="{json.dumps(s)[1:-1]}',
}
# Here no quotes say where the secret ends: any printable character but the separators.
BARE: Final[dict[str, Callable[[str], str]]] = {
    "assignment": "host=db password={} port=1".format,
    "blanks": "password     =     {}".format,
    "next line": "password:\n  {}".format,
    "run together": "dbpassword={}".format,
    "DB_PASS": "DB_PASS={}".format,
    "digest": 'Authorization: Digest username="bob", realm="r", response="{}"'.format,
    "cookie": 'Cookie: a="b"; session={}'.format,
    "bearer": "Authorization: Bearer {}".format,
}


def _no_piece_stays(form: Callable[[str], str], secret: str) -> None:
    text = form(secret)
    after = _scrub(text)
    around = form("")  # a piece may stand there by chance, where the secret repeats the text itself
    for piece in {secret[at : at + 6] for at in range(len(secret) - 5)}:
        assert piece in around or piece not in after, (piece, after[:200])


@given(
    st.sampled_from(sorted(QUOTED)),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=40),
)
@settings(max_examples=800, deadline=None)
def test_no_piece_of_a_quoted_secret_stays(form: str, secret: str) -> None:
    """Whatever quotes, escapes and brackets it holds."""
    assume(len(set(secret)) > 4 and any(c.isalnum() for c in secret) and "****" not in secret)
    assume(secret.lower() not in ("undefined", "redacted", "filtered"))  # words for "none"
    _no_piece_stays(QUOTED[form], secret)


@given(st.sampled_from(sorted(BARE)), st.text(_PLAIN, min_size=8, max_size=40))
@settings(max_examples=400, deadline=None)
def test_no_piece_of_a_bare_secret_stays(form: str, secret: str) -> None:
    """Without quotes around it too, a quote or a bracket in it does not end it."""
    assume(len(set(secret)) > 4 and "****" not in secret)
    _no_piece_stays(BARE[form], f"x7{secret}")


@pytest.mark.parametrize("form", sorted({**QUOTED, **BARE}))
@pytest.mark.parametrize("length", [8, 300, 4_001, 10_000])
def test_a_long_secret_goes_as_a_whole(form: str, length: int) -> None:
    """A mask has no greatest length."""
    secret = "".join(_LETTERS[(at * at + at // 7) % len(_LETTERS)] for at in range(length)) + "-TAIL99"
    assert "TAIL99" not in _scrub({**QUOTED, **BARE}[form](secret))


@pytest.mark.parametrize(
    "text",
    [
        r'{"password": "abc\"def-TAIL"}',
        r"password='it\'s-TAIL'",
        "password='it's-TAIL'",
        "password={ab;cd-TAIL}",
        "password=ab;cd-TAIL",
        "password=$ecretTAIL",
        'password="""x-TAIL"""',
        "EXEC('ALTER LOGIN a WITH PASSWORD = ''x-TAIL''')",
        "export DB_PASSWORD=$'x-TAIL'",
        "passphrase: correct horse TAIL",
        "password: str = 'x-TAIL",
        "postgres://u:pa/ss-TAIL@h",
        "postgres://u:pa#ss-TAIL@h/db",
        "a://b:c@d/TAIL@e",
        "https://s3cr3tTok3nABC-TAIL@github.com",
        "sshpass -p x-TAIL ssh h",
        "curl -u bob:x-TAIL https://h",
        "mysql -u root -px-TAIL db",
        "tool --token x1234567-TAIL",
        "clientsecret=x-TAIL",
        "accesstoken=x1234567-TAIL",
        "PRIVATEKEY: x-TAIL",
        "passcode=x-TAIL",
        "otp=12-TAIL",
        "pin: 12-TAIL",
        "Bearer abcdefghijklmnop-TAIL",
        "eyJhbGciOiJIUzI1NiJ9.eyJ" + "zdWI" * 2500 + ".abcdTAIL",
        "x=gsk_" + "a1" * 24 + "TAIL",
        "r8_" + "a1" * 18 + "TAIL",
        "lsv2_pt_" + "a1" * 16 + "_TAIL",
        "xai-" + "a1" * 40 + "TAIL",
        "pplx-" + "a1" * 24 + "TAIL",
        "sk-or-v1-" + "a1" * 32 + "TAIL",
        "dop_v1_" + "a1" * 32,
        "dckr_pat_" + "a1" * 14 + "TAIL",
        "glsa_" + "a1" * 16 + "_TAIL",
        "ATATT3" + "xF" * 20 + "TAIL",
        "GOCSPX-" + "a1" * 14 + "TAIL",
        "bot123456789:AA" + "a1" * 17 + "TAIL",
        "https://discord.com/api/webhooks/123456789012345678/" + "a1" * 30 + "TAIL",
        "shpat_" + "a1" * 16,
        "dapi" + "a1" * 16,
        "https://h/?next=1&sig=abcdefgh-TAIL",
        "api key: x-TAIL",
        '<input name="password" value="x-TAIL">',
        "CREATE USER x IDENTIFIED WITH sha256_password BY 'x-TAIL'",
        "CREATE USER x IDENTIFIED BY x-TAIL",
        "SET PASSWORD FOR 'bob'@'%' = 'x-TAIL'",
        "ALTER ROLE x PASSWORD $$x-TAIL$$",
        "ALTER ROLE x PASSWORD $a$x-$$TAIL$a$ VALID UNTIL 'infinity'",
        "SELECT * FROM u WHERE password NOT LIKE 'x-TAIL'",
        "SELECT * FROM t WHERE api_key IN ('x-TAIL', 'y-TAIL')",
        "CREATE SECRET s (TYPE S3, KEY_ID 'k', SECRET 'x-TAIL')",
        "PRAGMA key = 'x-TAIL'",
        "SECRET_KEY = 'django-x-TAIL'",
        "SECRET_KEY_BASE=x-TAIL",
        "CREDENTIALS=(AWS_KEY_ID='k' AWS_SECRET_KEY='x-TAIL')",
        "password_confirmation=x-TAIL",
        '{"passwordConfirm": "x-TAIL"}',
        '{"passwords": ["x-TAIL", "y-TAIL"]}',
        '{"value": "x-TAIL", "name": "API_KEY"}',
        '[{"name": "a", "value": "1"}, {"value": "x-TAIL", "key": "db_password"}]',
        "userPassword:: eDEyMzQ1Njc4-TAIL==",
        "csrfmiddlewaretoken=x1234567-TAIL",
        "credentials=x1234567-TAIL",
        "Ocp-Apim-Subscription-Key: x-TAIL",
        "GET /;jsessionid=x1234567-TAIL",
        "PHPSESSID=x1234567-TAIL",
        'psk="x12-TAIL"',
        "db:\n  password: |\n    x-TAIL\n    y-TAIL\n  port: 1",
        "machine h login u password x-TAIL",
        "redis-cli -h h -a x-TAIL ping",
        "docker login -u u -p x-TAIL h",
        "ldapsearch -D cn=x -w x-TAIL",
        "password\u00a0=\u00a0x-TAIL",
        'Content-Disposition: form-data; name="password"\r\n\r\nx-TAIL\r\n--b',
    ],
)
def test_what_must_be_masked(text: str) -> None:
    """One of each form that was missed, or masked in part."""
    after = _scrub(text)
    assert "****" in after
    assert "TAIL" not in after
    assert "a1a1" not in after


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO u VALUES(1) ON CONFLICT DO UPDATE SET password=EXCLUDED.password",
        "SELECT 1 FROM a JOIN b ON a.secret = b.secret",
        "SELECT * FROM a JOIN b ON a.token = sessions.token_id",
        "UPDATE u SET password = @p0, token = :token",
        "WHERE password IS NULL",
        "authorization: failed",
        "Cookie: disabled",
        "the secret: work hard",
        "signature: Signature object",
        "def f(password: str, token: Optional[str])",
        "token: str = Depends(x)",
        'api_key=os.environ["X"]',
        'api_key=os.getenv("X")',
        "secret=config.secret",
        "token=get_token()",
        "eos_token=abcdefghij",
        "next_token=abcdefghij",
        "pwd=/home/ada/work",
        "password=${DB_PASSWORD}",
        "password={password}",
        "password: <hidden password>",
        '{"password": null}',
        '{"password": ""}',
        "password='' user='b'",
        "https://h:8080/a@b",
        "http://user@host:80/",
        "mysql --password -h x",
        "mysql -u root db",
        "token: 12 of 4096 tokens used",
        "max_tokens=4096",
        "Basic authentication failed",
        "password:\nuser: bob",
        "password: ",
        "passwords: 3 of 40 are weak",
        "the user is identified by name",
        "identified with sha256_password",
        "fetch(url, {credentials: 'include'})",
        "credentials=/etc/hub/key.json",
        "the password for user 'bob' was changed",
        "the secret 'of success'",
        "use secrets::get to read it",
        "a value, and the name: token",
        '{"value": "12", "name": "max_tokens"}',
        "docker login -u u --password-stdin",
        "machine learning needs no password",
        "redis-cli ping",
        "session_id=abcdefgh",
        "pass/fail: 12",
        '{"auth": "oauth2login"}',
    ],
)
def test_what_must_be_left(text: str) -> None:
    """Statements, code and prose in which no secret stands."""
    assert _scrub(text) == text


@pytest.mark.parametrize(
    "key",
    [
        "clientsecret",
        "accesstoken",
        "refreshtoken",
        "privatekey",
        "PRIVATEKEY",
        "secretkey",
        "authtoken",
        "apitoken",
        "userpassword",
        "dbpassword",
        "DBPASSWORD",
        "bearer",
        "auth.bearer",
        "DB_PASS",
        "wifi_pass",
        "smtppass",
        "routerPass",
        "auth",
        "basicAuth",
        "basic_auth",
        "session_key",
        "license_key",
        "Ocp-Apim-Subscription-Key",
        "passcode",
        "pass",
        "pin",
        "otp",
        "pwd",
    ],
)
def test_run_together_and_short_keys(key: str) -> None:
    """However a name is written, what stands under it is a secret."""
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "eos_token",
        "bos_token",
        "unk_token",
        "sep_token",
        "cls_token",
        "mask_token",
        "pad_token",
        "stop_token",
        "cancellation_token",
        "pagination_token",
        "page_token",
        "nextPageToken",
        "next_token",
        "continuation_token",
        "gen_ai.token",
        "gen_ai.token.type",
        "llm.token.count",
        "gen_ai.server.time_to_first_token",
        "gpio.pin",
        "mapping",
        "bypass",
        "compass",
        "render_pass",
        "highPass",
        "auth.type",
        "session.id",
    ],
)
def test_keys_of_other_tokens(key: str) -> None:
    """A word's token and a place in a list are no secrets."""
    assert not is_secret_key(key)


def test_arguments_and_working_directories() -> None:
    """The argument after `--password` is a secret; a path under `pwd` is none, anything else there is one."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="s", trace_id=b"t" * 16, span_id=b"s" * 8)
    for key, arguments in (("a", ["mysql", "--password", "hunter2"]), ("b", ["sshpass", "-p", "hunter2", "ssh"])):
        values = span.attributes.add(key=key).value.array_value.values
        values.extend(AnyValue(string_value=text) for text in arguments)
    span.attributes.add(key="process.pwd", value=AnyValue(string_value="/home/ada"))
    span.attributes.add(key="db.pwd", value=AnyValue(string_value="hunter2"))
    decoded = decode_arriving([Record(Signal.TRACES, request.SerializeToString(), 1)], [REDACTION])
    attributes = dict(decoded.tables["otel_traces"].to_pylist()[0]["SpanAttributes"])
    assert attributes["process.pwd"] == "/home/ada"
    assert json.loads(attributes["a"]) == ["mysql", "--password", "****"]
    assert "hunter2" not in str(attributes)


def test_no_text_takes_long() -> None:
    """A megabyte made to be slow for the reading is done within seconds."""
    for piece in (
        "password='a'",
        'password="',
        "password={",
        "password=a;",
        "secret: a ",
        "://a:",
        "://a@",
        "curl -",
        "mysql ",
        "password=\\",
        "\\",
        "'",
        "Cookie: '",
        '"authorization","',
        "<password>",
        "token(",
        "password: A = ",
        "-p ",
        "sshpass ",
        "password%3D",
        "password \\n",
        "password=b.c(",
        "bearer aaaaaaaa",
    ):
        REDACTION._scrubbed(piece * (1_000_000 // len(piece)))
