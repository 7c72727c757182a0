"""A statement's shape: its text without literals, its operation, its tables, and a short stable name.

The name is `{operation} {tables} #{six hex digits}`, as `SELECT memories tags #4f1c9a`: readable, and two statements
of different shape over the same tables differ in the digits, which hash the normalised text. The same shape has the
same name in every process and version. Lists of literals or parameters fold into one (`IN (?)`), so that their length
makes no new shape. A double-quoted word where a value stands is taken for SQLite's old string syntax and replaced
too.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

# Longer statements are generated ones: their beginning names the shape well enough, and the rest would cost.
MAX_CHARACTERS: Final = 4096
# Statements with literals in them never repeat: the cache is emptied when full rather than grown.
MAX_CACHED: Final = 2000
# Beyond so many shapes the summary loses its digits: a metric with a series for each would only grow.
MAX_SHAPES: Final = 1000

_TOKEN: Final = re.compile(
    r"""
    (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
  | (?P<literal> [xXbBnNeE]?'(?:[^']|'')*(?:'|\Z) | \$\$.*?(?:\$\$|\Z) )
  | (?P<quoted>  "(?:[^"]|"")*(?:"|\Z) | `[^`]*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
  | (?P<param>   \?\d* | [:@$][A-Za-z_]\w* | %s | %\(\w+\)s )
  | (?P<number>  (?: 0[xX][0-9a-fA-F]+ | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)? ) (?!\w) )
  | (?P<word>    [^\W\d][\w$]* )
  | (?P<operator> <>|!=|<=|>=|==|\|\||::|->>|-> )
  | (?P<other>   \S )
    """,
    re.VERBOSE | re.DOTALL,
)

_VALUE_FOLLOWS: Final = frozenset(
    {"=", "==", "<", ">", "<=", ">=", "<>", "!=", "||", "LIKE", "GLOB", "MATCH", "REGEXP", "IS", "NOT", "THEN", "ELSE",
     "BETWEEN", "LIMIT", "OFFSET", "ESCAPE"}
)  # fmt: skip
_TABLE_FOLLOWS: Final = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE"})
_NOT_A_TABLE: Final = frozenset(
    {"SELECT", "VALUES", "IF", "NOT", "EXISTS", "OR", "SET", "WHERE", "LATERAL", "ONLY", "UNNEST", "ROLLBACK", "ABORT",
     "FAIL", "IGNORE", "REPLACE"}
)  # fmt: skip
_STATEMENTS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"})
_NO_SPACE_BEFORE: Final = frozenset({",", ")", ";", ".", "::"})
_NO_SPACE_AFTER: Final = frozenset({"(", ".", "::"})
_LISTS: Final = re.compile(r"\(\?(?:, \?)+\)")
_ROWS: Final = re.compile(r"\(\?\)(?:, \(\?\))+")

# sqlite-vec 0.1: the functions and hidden columns of its documentation.
_DISTANCES: Final = re.compile(r"\bvec_distance_(?:l1|l2|cosine|hamming) ?\(", re.IGNORECASE)
_MATCH: Final = re.compile(r"\bMATCH\b", re.IGNORECASE)
_NEAREST: Final = re.compile(r"\bk = \?|\bORDER BY (?:\w+\.)?distance\b", re.IGNORECASE)

_cache: dict[str, Shape] = {}
_shapes: set[str] = set()


class Shape(NamedTuple):
    """`collection` is the first table, or "" where there is none. `vector` where it searches vectors by sqlite-vec."""

    text: str
    operation: str
    collection: str
    summary: str
    vector: bool = False


def shape_of(sql: str) -> Shape:
    """The shape of `sql`, remembered by its text."""
    found = _cache.get(sql)
    if found is None:
        found = _shape(sql)
        if len(_cache) >= MAX_CACHED:
            _cache.clear()
        if len(sql) <= MAX_CHARACTERS:
            _cache[sql] = found
    return found


def _shape(sql: str) -> Shape:
    tokens = _tokens(sql[:MAX_CHARACTERS])
    text = _ROWS.sub("(?)", _LISTS.sub("(?)", _joined(tokens)))
    operation = _operation(tokens)
    tables = _tables(tokens)
    readable = " ".join((operation, *tables))[:200]
    digits = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=3).hexdigest()
    if digits not in _shapes and len(_shapes) >= MAX_SHAPES:
        return Shape(text, operation, tables[0] if tables else "", readable, _searches_vectors(operation, text))
    _shapes.add(digits)
    summary = f"{readable} #{digits}"
    return Shape(text, operation, tables[0] if tables else "", summary, _searches_vectors(operation, text))


def _searches_vectors(operation: str, text: str) -> bool:
    """A KNN query of a `vec0` table, which must have MATCH with `k =` or an order by `distance` (a full-text search has
    neither), or distances computed row by row."""
    if operation not in ("SELECT", "WITH"):
        return False
    return bool(_DISTANCES.search(text)) or bool(_MATCH.search(text) and _NEAREST.search(text))


def _tokens(sql: str) -> list[tuple[str, str]]:
    """(kind, text) of each token; literals, numbers and parameters have become `?`."""
    tokens: list[tuple[str, str]] = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup or "other"
        text = match.group()
        if kind == "comment":
            continue
        qualified = sql[match.end() : match.end() + 1] == "."
        old_string = kind == "quoted" and text[0] == '"' and not qualified and _is_value(tokens)
        if old_string or kind in ("literal", "number", "param"):
            kind, text = "value", "?"
        # A sign belongs to the literal: `-1` and `1` are the same shape.
        signed = kind == "value" and tokens and tokens[-1][1] in "+-" and (len(tokens) < 2 or _takes_sign(tokens[-2]))
        if signed:
            tokens.pop()
        tokens.append((kind, text))
    return tokens


def _is_value(before: list[tuple[str, str]]) -> bool:
    """Whether a double-quoted word after these tokens stands where a value would."""
    if not before:
        return False
    if before[-1][1].upper() in _VALUE_FOLLOWS:
        return True
    if before[-1][1] not in ("(", ","):
        return False
    depth = 0  # inside `IN (` or `VALUES (`
    for at in range(len(before) - 1, 0, -1):
        text = before[at][1]
        depth += (text == ")") - (text == "(")
        if depth < 0:
            return before[at - 1][1].upper() in ("IN", "VALUES") or (
                before[at - 1][1] == "," and any(t[1].upper() == "VALUES" for t in before[:at])
            )
    return False


def _takes_sign(token: tuple[str, str]) -> bool:
    return (token[0] in ("operator", "other") and token[1] != ")") or token[1].upper() in _KEYWORDS


def _joined(tokens: list[tuple[str, str]]) -> str:
    parts: list[str] = []
    previous = ""
    for kind, text in tokens:
        call = text == "(" and parts and previous not in ("", ",", "(") and tokens and _is_name_end(parts[-1])
        if parts and text not in _NO_SPACE_BEFORE and previous not in _NO_SPACE_AFTER and not call:
            parts.append(" ")
        parts.append(text.upper() if kind == "word" and text.upper() in _KEYWORDS else text)
        previous = text
    return "".join(parts).rstrip("; ")


def _is_name_end(text: str) -> bool:
    return text[-1:].isalnum() and text.upper() not in _KEYWORDS


def _operation(tokens: list[tuple[str, str]]) -> str:
    words = [text.upper() for kind, text in tokens if kind == "word"]
    if not words:
        return "UNKNOWN"
    if words[0] != "WITH":
        return words[0]
    depth = 0
    for kind, text in tokens:  # the statement after the common table expressions
        depth += (text == "(") - (text == ")")
        if depth == 0 and kind == "word" and text.upper() in _STATEMENTS:
            return text.upper()
    return "WITH"


def _tables(tokens: list[tuple[str, str]]) -> list[str]:
    """Tables in order of their first mention, common table expressions left out."""
    expressions = {
        tokens[i - 1][1].lower()
        for i in range(1, len(tokens) - 1)
        if tokens[i][1].upper() == "AS" and tokens[i + 1][1] in ("(", "MATERIALIZED", "NOT")
    }
    first = tokens[0][1].upper() if tokens else ""
    if first == "PRAGMA" and len(tokens) > 1:
        return [tokens[1][1]]
    found: list[str] = []
    for at, (kind, text) in enumerate(tokens):
        if kind == "word" and text.upper() in _TABLE_FOLLOWS:
            _tables_at(tokens, at + 1, expressions, found, listed=text.upper() == "FROM")
    return found[:5]


def _tables_at(
    tokens: list[tuple[str, str]], at: int, expressions: set[str], found: list[str], *, listed: bool
) -> None:
    while at < len(tokens):
        while at < len(tokens) and tokens[at][0] == "word" and tokens[at][1].upper() in _NOT_A_TABLE:
            if tokens[at][1].upper() in ("SELECT", "VALUES", "SET", "WHERE"):
                return
            at += 1
        if at >= len(tokens) or tokens[at][0] not in ("word", "quoted"):
            return
        name = _bare(tokens[at][1])
        at += 1
        while at + 1 < len(tokens) and tokens[at][1] == "." and tokens[at + 1][0] in ("word", "quoted"):
            name, at = _bare(tokens[at + 1][1]), at + 2
        if name and name.lower() not in expressions and name not in found:
            found.append(name)
        if not listed:
            return
        if at < len(tokens) and tokens[at][1].upper() == "AS":
            at += 1
        if at < len(tokens) and tokens[at][0] in ("word", "quoted") and tokens[at][1].upper() not in _KEYWORDS:
            at += 1  # an alias
        if at >= len(tokens) or tokens[at][1] != ",":
            return
        at += 1


def _bare(name: str) -> str:
    return name.strip('"`[]')


_KEYWORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """ALL ALTER ANALYZE AND AS ASC ATTACH BEGIN BETWEEN BY CASE CAST COLLATE COMMIT CREATE CROSS DEFAULT DELETE
        DESC DETACH DISTINCT DROP ELSE END ESCAPE EXCEPT EXISTS EXPLAIN FROM FULL GLOB GROUP HAVING IF IN
        INDEX INNER INSERT INTERSECT INTO IS JOIN KEY LEFT LIKE LIMIT MATCH NATURAL NOT NULL OFFSET ON OR
        ORDER OUTER OVER PARTITION PLAN PRAGMA PRIMARY QUERY REGEXP RELEASE REPLACE RETURNING RIGHT
        ROLLBACK SAVEPOINT SELECT SET TABLE THEN TO TRANSACTION TRIGGER UNION UNIQUE UPDATE USING VACUUM
        VALUES VIEW VIRTUAL WHEN WHERE WINDOW WITH WITHOUT""",
    )
)
