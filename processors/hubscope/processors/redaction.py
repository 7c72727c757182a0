"""Secrets in what arrives are replaced before anything is stored, derived or forwarded.

Finding: one pass of RE2 over the texts of all columns of some thousand spans, end to end (0.2 us a span); where it
finds something, the distinct texts of that column are looked at one by one. Replacing: only in the requests and rows
that were found, in the parsed message, so that the lake and every destination get the same.
"""

from __future__ import annotations

import fnmatch
import re
from base64 import b32encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import Message

from hubscope.processors.arriving import Kind, Leaf, Suspects
from hubscope.processors.options import DROP, HASH, RedactionOptions
from hubscope.processors.owner_patterns import OwnerPattern, matches_whole
from hubscope.processors.secret_patterns import CARD, KEY_TRIGGER, PATTERNS, SecretPattern, is_secret_key, loose, luhn
from hubscope.processors.secret_values import LOOSE, is_path, is_replaced, secrets
from hubscope.semconv import HUB_REDACTED

MASKED: Final = "****"
_HASHED: Final = re.compile("hash:[a-z2-7]{16}")
MAX_PLACES: Final = 16  # named in `hub.redacted`
# Texts whose answer is remembered: statements and URLs come again with every span.
_REMEMBERED: Final = 4096
_REMEMBERED_LENGTH: Final = 4096
_ANCHORS: Final = re.compile(r"\\[AzZB]|[$^]")  # end to end, nothing is at a beginning or an end
_SKIPPED: Final = frozenset({"spans", "log_records", "metrics", "scope_spans", "scope_logs", "scope_metrics"})
_PLAIN: Final = frozenset({"bool_value", "double_value", None})
_VALUES: Final = frozenset({"AnyValue", "ArrayValue", "KeyValueList"})  # no part of a place's name
_MARKED: Final = frozenset({"Span", "LogRecord", "Resource"})  # metric points: an attribute would be another series


class Redaction:
    """`key` is what hashes are made with: the same secret has the same hash where the key is the same."""

    name = "redaction"

    def __init__(self, options: RedactionOptions, key: bytes) -> None:
        self.options = options
        self._key = key
        self._counts: Counter[str] = Counter()
        self._replacements = 0
        more = tuple(SecretPattern("custom", expression) for expression in options.patterns)
        shipped = (*PATTERNS, *((CARD,) if options.cards else ()))
        patterns = (*shipped, *more)
        self._patterns = [(p, re.compile(p.expression, re.ASCII)) for p in shipped]
        self._owner = [OwnerPattern(expression) for expression in options.patterns]
        self._keys = [re.compile(fnmatch.translate(glob.lower())) for glob in options.keys]
        self._allowed_keys = [re.compile(fnmatch.translate(glob.lower())) for glob in options.allowed_keys]
        self._loose = "|".join([*(loose(p) for p in patterns), LOOSE])
        self._nested = "|".join(
            [self._loose, "sshpass", f"(?:{KEY_TRIGGER})", *(_longest_literal(glob) for glob in options.keys)]
        )
        self._end_to_end = not any(_ANCHORS.search(expression) for expression in options.patterns)
        self._is_secret = lru_cache(_REMEMBERED)(self._is_secret_key)
        self._scrub_short = lru_cache(_REMEMBERED)(self._scrubbed)

    def counts(self) -> dict[str, int]:
        """Kind of secret -> how many were replaced."""
        return dict(self._counts)

    # --- finding ---------------------------------------------------------------------------------------------

    def suspects(self, leaves: Sequence[Leaf], found: Suspects) -> None:
        """Every row and request that holds a secret, and few that do not."""
        for leaf in leaves:
            if leaf.kind is Kind.KEY:
                self._look_at_keys(leaf, found)
            elif leaf.kind is Kind.INT and self.options.cards:
                large = pc.fill_null(pc.greater_equal(leaf.values, 10**12), False)
                found.add(leaf, np.flatnonzero(large.to_numpy(zero_copy_only=False)))
        texts = [leaf for leaf in leaves if leaf.kind in (Kind.TEXT, Kind.BYTES)]
        for leaf in self._with_a_match(texts, self._loose):
            encoded = pc.dictionary_encode(leaf.values)
            matched = pc.match_substring_regex(encoded.dictionary, self._loose).to_numpy(zero_copy_only=False)
            maybe = {i: encoded.dictionary[i].as_py() for i in np.flatnonzero(matched).tolist()}
            self._add(leaf, encoded, [i for i, text in maybe.items() if self._holds_secret(text)], found)
        nested = [leaf for leaf in leaves if leaf.kind is Kind.NESTED]
        for leaf in self._with_a_match(nested, self._nested):
            matches = pc.fill_null(pc.match_substring_regex(leaf.values, self._nested), False)
            found.add(leaf, np.flatnonzero(matches.to_numpy(zero_copy_only=False)))

    def _look_at_keys(self, leaf: Leaf, found: Suspects) -> None:
        encoded = pc.dictionary_encode(leaf.values)
        keys = enumerate(encoded.dictionary.to_pylist())
        self._add(leaf, encoded, [i for i, key in keys if self._is_secret(key) or self._holds_secret(key)], found)

    @staticmethod
    def _add(leaf: Leaf, encoded: pa.DictionaryArray, guilty: list[int], found: Suspects) -> None:
        if guilty:
            indices = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
            found.add(leaf, np.flatnonzero(np.isin(indices, guilty)))

    def _with_a_match(self, leaves: list[Leaf], expression: str) -> list[Leaf]:
        """Those with a match anywhere: each column's bytes are one text for RE2, which saves the cost of each value."""
        if not leaves or not self._end_to_end:
            return leaves
        parts = [_bytes(leaf.values) for leaf in leaves]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        whole = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(parts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))]
        )
        matched = pc.match_substring_regex(whole, expression).to_pylist()
        return [leaf for leaf, matches in zip(leaves, matched, strict=True) if matches]

    def _holds_secret(self, text: str | bytes) -> bool:
        plain = text.decode("latin-1") if isinstance(text, bytes) else text
        return self._scrub(plain)[0] != plain

    def _is_secret_key(self, key: str) -> bool:
        lower = key.lower()
        if any(pattern.match(lower) for pattern in self._allowed_keys):
            return False
        return is_secret_key(key) or any(pattern.match(lower) for pattern in self._keys)

    # --- replacing -------------------------------------------------------------------------------------------

    def mend(self, message: Any) -> bool:
        """Replace the secrets of a row, a resource or a scope, and what is above them; whether there were any."""
        places: dict[str, None] = {}
        self._message(message, "", places)
        if not places:
            return False
        holder = message.resource if message.DESCRIPTOR.name.startswith("Resource") else message
        if holder.DESCRIPTOR.name in _MARKED:
            self._mark(holder, places)
        return True

    def _message(self, message: Any, path: str, places: dict[str, None]) -> None:
        is_value = message.DESCRIPTOR.name in _VALUES
        for descriptor, value in message.ListFields():
            name = descriptor.name
            if name in _SKIPPED:
                continue
            place = path if is_value else f"{path}.{name}" if path else name
            if descriptor.message_type is not None:
                if descriptor.message_type.name == "KeyValue":
                    self._attributes(message, value, path, places)
                elif isinstance(value, Message):
                    self._message(value, place, places)
                else:
                    for member in value:
                        self._message(member, place, places)
                    if message.DESCRIPTOR.name == "ArrayValue":
                        self._arguments(value, place, places)
            elif descriptor.type == descriptor.TYPE_STRING:
                if not isinstance(value, str):
                    value[:] = [self._replaced(member, place, places) for member in value]
                else:
                    self._set(message, name, value, place, places)
            elif name == "bytes_value":
                text = value.decode("latin-1")
                after = self._replaced(text, place, places)
                if after != text:
                    message.bytes_value = after.encode("latin-1")
            elif name == "int_value" and self.options.cards and luhn(str(value)):
                self._note(("card",), path, places)
                message.string_value = self._hidden(str(value))

    def _arguments(self, values: Any, place: str, places: dict[str, None]) -> None:
        """A command's arguments: `["--password", "x"]`, `["sshpass", "-p", "x"]`."""
        for number in range(1, len(values)):
            option, after = values[number - 1].string_value, values[number].string_value
            at_command = number > 1 and values[number - 2].string_value.endswith("sshpass") and option == "-p"
            names_secret = option.startswith("-") and self._is_secret(option.rstrip("="))
            if after and (at_command or (names_secret and not after.startswith("-"))) and self._is_meant(None, after):
                self._note(("assignment",), place, places)
                values[number].string_value = self._hidden(after)

    def _attributes(self, owner: Any, pairs: Any, path: str, places: dict[str, None]) -> None:
        dropped = []
        for index, pair in enumerate(pairs):
            if self._allowed_keys and any(pattern.match(pair.key.lower()) for pattern in self._allowed_keys):
                continue
            before = self._replacements
            key, kind = pair.key, pair.value.WhichOneof("value")
            if self._holds_secret(key):
                pair.key = self._replaced(key, path or "attributes", places)
            if kind in _PLAIN and not self._is_secret(key):
                continue
            place = f"{path}.{pair.key}" if path else pair.key
            path_of_pwd = key.lower().endswith("pwd") and is_path(pair.value.string_value)
            if kind is not None and self._is_secret(key) and not path_of_pwd and not _is_empty(pair.value, kind):
                hidden = self._hidden(str(getattr(pair.value, kind)))
                if (kind, pair.value.string_value) != ("string_value", hidden):
                    self._note(("key",), place, places)
                    pair.value.Clear()
                    pair.value.string_value = hidden
            elif kind == "string_value":
                self._set(pair.value, kind, pair.value.string_value, place, places)
            else:
                self._message(pair.value, place, places)
            if self.options.action == DROP and self._replacements > before:
                dropped.append(index)
        for index in reversed(dropped):
            del pairs[index]
        if dropped and hasattr(owner, "dropped_attributes_count"):
            owner.dropped_attributes_count += len(dropped)

    def _set(self, message: Any, name: str, value: str, place: str, places: dict[str, None]) -> None:
        after = self._replaced(value, place, places)
        if after != value:
            setattr(message, name, after)

    def _replaced(self, text: str, place: str, places: dict[str, None]) -> str:
        answer, kinds = self._scrub(text)
        if kinds:
            self._note(kinds, place, places)
        return answer

    def _note(self, kinds: tuple[str, ...], place: str, places: dict[str, None]) -> None:
        self._counts.update(kinds)
        self._replacements += len(kinds)
        places[place] = None

    def _scrub(self, text: str) -> tuple[str, tuple[str, ...]]:
        return self._scrub_short(text) if len(text) <= _REMEMBERED_LENGTH else self._scrubbed(text)

    def _scrubbed(self, text: str) -> tuple[str, tuple[str, ...]]:
        """The text without its secrets, and the kind of each."""
        kinds: list[str] = []
        for pattern, expression in self._patterns:

            def replace(found: re.Match[str], pattern: SecretPattern = pattern) -> str:
                group = next((n for n, part in enumerate(found.groups(), start=1) if part is not None), 0)
                secret = found[group]
                if not self._is_meant(pattern, secret):
                    return found[0]
                kinds.append(pattern.kind)
                start, end = (place - found.start() for place in found.span(group))
                return found[0][:start] + self._hidden(secret) + found[0][end:]

            text = expression.sub(replace, text)
        for owner in self._owner:
            text = self._hide(text, (("custom", start, end) for start, end in owner.places(text)), kinds)
        return self._hide(text, secrets(text), kinds), tuple(kinds)

    def _hide(self, text: str, places: Iterable[tuple[str, int, int]], kinds: list[str]) -> str:
        pieces, done = [], 0
        for kind, start, end in places:
            if self._is_meant(None, text[start:end]):
                kinds.append(kind)
                pieces += [text[done:start], self._hidden(text[start:end])]
                done = end
        return "".join([*pieces, text[done:]])

    def _is_meant(self, pattern: SecretPattern | None, secret: str) -> bool:
        if not secret or is_replaced(secret):
            return False
        if pattern is not None and pattern.plausible is not None and not pattern.plausible(secret):
            return False
        return not any(matches_whole(secret, expression) for expression in self.options.allowed)

    def _hidden(self, secret: str) -> str:
        if self.options.action != HASH:
            return MASKED
        if _HASHED.fullmatch(secret):
            return secret
        digest = blake2b(secret.encode("utf-8", "surrogatepass"), key=self._key, digest_size=10).digest()
        return "hash:" + b32encode(digest).decode().lower()

    def _mark(self, message: Any, places: dict[str, None]) -> None:
        mark = next((pair for pair in message.attributes if pair.key == HUB_REDACTED), None)
        if mark is None:
            mark = message.attributes.add(key=HUB_REDACTED)
        names = [value.string_value for value in mark.value.array_value.values]
        for place in places:
            if place not in names and len(names) < MAX_PLACES:
                names.append(place)
        del mark.value.array_value.values[:]
        for name in names:
            mark.value.array_value.values.add(string_value=name)


def _is_empty(value: Any, kind: str) -> bool:
    found = getattr(value, kind)
    return found in ("", b"") or (kind in ("array_value", "kvlist_value") and not found.values)


def _bytes(values: pa.Array) -> memoryview:
    """The bytes of all values of a text or binary column, one after the other, without a copy."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(bounds[0]) : int(bounds[-1])]


def _longest_literal(glob: str) -> str:
    """What RE2 can look for of a glob."""
    literals: Iterator[str] = iter(re.split(r"\*|\?|\[[^\]]*\]", glob))
    return f"(?i:{re.escape(max(literals, key=len))})"
