"""`${env:NAME}` in a configuration, as docs/rfcs/env-vars.md of the stock Collector has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.collector.configuration import values
from hubscope.collector.configuration.settings import load
from hubscope.collector.configuration.variables import resolve
from hubscope.errors import ConfigError

ENVIRONMENT = {
    "NUMBER": "123", "OCTAL": "0123", "HEX": "0xdeadbeef", "QUOTED": '"0123"', "TAGGED": "!!str 0123", "T": "t",
    "TRUE": "true", "NO": "no", "EMPTY": "", "LIST": "[a, b]", "TABLE": "{x-key: abc}", "PATH_LIKE": "a: b: c",
    "DATE": "2026-13-45",
    "POINTER": "NUMBER", "INDIRECT": "${env:NUMBER}", "LOOP": "${LOOP}", "DOLLARS": "p$$w", "DOLLAR": "p$w",
    "CLOCK": "12:30",
}  # fmt: skip


def resolved(text: Any) -> Any:
    problems: list[str] = []
    found = resolve({"key": text}, "", ENVIRONMENT, problems)["key"]
    assert problems == []
    return found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # the RFC's table, fields of text: the characters that were written
        ("${env:NUMBER}", "123"), ("${env:OCTAL}", "0123"), ("${OCTAL}", "0123"), ("${env:HEX}", "0xdeadbeef"),
        ("${env:QUOTED}", "0123"), ("${env:TAGGED}", "0123"),
        # inside a longer text
        ("http://h/${env:OCTAL}", "http://h/0123"), ("http://h/${QUOTED}", "http://h/0123"),
        ("${NUMBER}${HEX}", "1230xdeadbeef"),
        # defaults: only where it is not set
        ("${env:NONE:-x:y}", "x:y"), ("${NONE:-}", ""), ("${env:EMPTY:-x}", ""), ("${env:NONE:-${env:NUMBER}}", "123"),
        # escapes, also in defaults and in variables
        ("$$", "$"), ("$${env:NUMBER}", "${env:NUMBER}"), ("$$${env:NUMBER}", "$123"), ("$$$${NUMBER}", "$${NUMBER}"),
        ("${NONE:-a$$b}", "a$b"), ("${env:DOLLARS}", "p$w"), ("${env:DOLLAR}", "p$w"),
        ("a$NUMBER", "a$NUMBER"), ("5$", "5$"),
        # references in references and in variables
        ("${env:${env:POINTER}}", "123"), ("${env:INDIRECT}", "123"), ("<${INDIRECT}>", "<123>"),
        # lists and tables
        ("${env:LIST}", ["a", "b"]), ("${env:TABLE}", {"x-key": "abc"}), ("x ${env:LIST}", "x [a, b]"),
        # what is no YAML is a text
        ("${env:PATH_LIKE}", "a: b: c"), ("${env:DATE}", "2026-13-45"),
    ],
)  # fmt: skip
def test_a_reference_becomes(text: str, wanted: Any) -> None:
    """Each form of a reference gives what the stock Collector gives."""
    assert resolved(text) == wanted


@pytest.mark.parametrize(
    ("text", "reader", "wanted"),
    [
        ("${env:NUMBER}", values.size, 123), ("${env:OCTAL}", values.size, 83), ("${env:HEX}", values.size, 0xDEADBEEF),
        ("${env:NUMBER} KiB", values.size, 123 * 1024), ("${env:TRUE}", values.boolean, True),
        ("${env:T}", values.boolean, None), ("${env:NUMBER}", values.boolean, None),
        ("${env:NO}", values.boolean, None),
        ("${env:CLOCK}", values.duration, None), ("${env:EMPTY}", values.address, None),
        ("${env:LIST}", values.texts, ("a", "b")), ("${env:TABLE}", values.headers, (("x-key", "abc"),)),
        ("${env:OCTAL}", values.tokens, ("0123",)),
    ],
)  # fmt: skip
def test_a_field_takes_the_variables_type(text: str, reader: Any, wanted: Any) -> None:
    """Numbers, booleans, lists and tables fit their fields; `t`, 23 and `no` are no boolean, nothing is no address."""
    if wanted is None:
        with pytest.raises(ValueError, match="must be"):
            reader(resolved(text))
    else:
        assert reader(resolved(text)) == wanted


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${env:NONE}", "the variable NONE is not set; set it, or write ${env:NONE:-default}"),
        ("x${NONE}", "the variable NONE is not set"),
        ("${env:1A}", "${env:1A} is not a variable"),
        ("${1}", "${1} is not a variable; write ${env:NAME}, or $$ for a dollar"),
        ("${file:/etc/passwd}", "${file:/etc/passwd} is not a variable"),
        ("${env:" + "A" * 201 + "}", "is not a variable"),
        ("${env:NUMBER", "has a reference without an end"),
        ("${LOOP}", "does a variable hold itself?"),
    ],
)
def test_what_cannot_be_put_in_is_named_with_its_path(text: str, problem: str) -> None:
    """Not set, no name, another provider, no end, a circle: the path, the reference and the way out."""
    problems: list[str] = []
    resolve({"a": [{"b": text}]}, "", ENVIRONMENT, problems)
    assert len(problems) == 1
    assert problems[0].startswith("a[0].b: ")
    assert problem in problems[0]


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    """Two variables that are not set and a wrong value are three problems of one answer."""
    (tmp_path / "c.toml").write_text(
        '[receivers]\ngrpc.endpoint = "${env:GRPC}"\nhttp.endpoint = "${HTTP}"\nmax_request_size = "${env:SIZE}"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(config_path=str(tmp_path / "c.toml"), default_lake="/lake", environment={"SIZE": "lots"})
    assert [p.partition(":")[0] for p in caught.value.problems[:2]] == [
        "receivers.grpc.endpoint",
        "receivers.http.endpoint",
    ]
    assert "receivers.max_request_size: must be a size" in "\n".join(caught.value.problems)


def test_a_variable_with_a_secret_is_not_quoted(tmp_path: Path) -> None:
    """A token that does not fit is refused without being told."""
    (tmp_path / "c.yaml").write_text("receivers: {auth: {bearer_tokens: ['${env:TOKEN}']}}")
    with pytest.raises(ConfigError) as caught:
        load(config_path=str(tmp_path / "c.yaml"), default_lake="/lake", environment={"TOKEN": "my secret"})
    assert "my secret" not in str(caught.value)
    assert "receivers.auth.bearer_tokens" in str(caught.value)


@given(st.text(alphabet="${}:-envNUMBER_A\0 x", max_size=40))
def test_no_text_brings_it_down(text: str) -> None:
    """Whatever braces and dollars stand in a value: it is resolved, or it is a problem; without a dollar it stays."""
    problems: list[str] = []
    found = resolve(text, "p", ENVIRONMENT, problems)
    if "$" not in text:
        assert found == text
    assert all(p.startswith("p: ") for p in problems)
