"""What spans, metrics and logs have in common: a request is resources, their scopes, and the items of each.

The three requests have the same field numbers down to the items (opentelemetry/proto/collector/*/v1), so this is
written once: Request.resource_x = 1; ResourceX.resource = 1, scope_x = 2, schema_url = 3; ScopeX.scope = 1, items = 2,
schema_url = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from hubscope.exporters.encoding import losses
from hubscope.exporters.encoding.attributes import FIELD_1, FIELD_3, plain
from hubscope.exporters.encoding.values import utf8
from hubscope.exporters.encoding.wire import field, heads, varint

# What stands before and after the items of a resource or a scope, kept by the object's identity: its hash would write
# all its attributes as JSON each time (that is a third of the stock encoder's time). The object is kept too, so that no
# other can take its id. An application has one resource and some scopes; with 256 of 2 kB each this is 0.5 MB.
MAX_KEPT: Final = 256
MAX_SEEN: Final = 1024  # pairs of them that one `Groups` knows by identity

_ONE: Final = b"\x0a"
ITEM: Final = b"\x12"
ITEM_HEADS: Final = heads(ITEM)
_SCHEMA_URL: Final = b"\x1a"
_NAME: Final = b"\x0a"
_VERSION: Final = b"\x12"


_Item = TypeVar("_Item")


class Encoded(NamedTuple):
    """An OTLP export request: what a transport sends, and what it counts."""

    payload: bytes  # protobuf; empty when nothing is to be sent
    items: int  # spans, data points or log records in it
    left_out: int  # those that could not be written; `losses` has named them


class _Ends(NamedTuple):
    """What stands before and after the items of a resource or a scope."""

    before: bytes
    after: bytes


_resources: Final[dict[int, tuple[Any, _Ends]]] = {}
_scopes: Final[dict[int, tuple[Any, _Ends]]] = {}


class Groups:
    """Items by resource and scope, in the order in which each was first seen.

    Those that are written alike share a group. The stock encoder groups by equality: there `True` and 1 in a scope's
    attributes are the same, and the order of a resource's attributes does not matter.
    """

    def __init__(self) -> None:
        # With the objects, so that no other takes their ids meanwhile: spans may come from a generator.
        self._seen: dict[tuple[int, int], tuple[list[bytes], Any, Any]] = {}
        self._resources: dict[_Ends, dict[_Ends, list[bytes]]] = {}

    def items_of(self, resource: Any, scope: Any) -> list[bytes]:
        """Where the fields of items of this resource and scope are appended."""
        known = self._seen.get((id(resource), id(scope)))
        if known is not None:
            return known[0]
        if len(self._seen) >= MAX_SEEN:  # an application that asks for a tracer each time has a new scope each time
            self._seen.clear()
        scopes = self._resources.setdefault(_ends(_resources, resource, _resource), {})
        items = scopes.setdefault(_ends(_scopes, scope, _scope), [])
        self._seen[id(resource), id(scope)] = (items, resource, scope)
        return items

    def payload(self) -> bytes:
        """The whole request. A scope without items (all of them were left out) is not in it."""
        return _request((resource, list(scopes.items())) for resource, scopes in self._resources.items())

    def take(self, at_most: int) -> tuple[bytes, int]:
        """A request of up to that many of what was appended, and how many; they leave.

        Other threads may append meanwhile: nothing is waited for and nothing of theirs is lost.
        """
        taken = 0
        resources: list[tuple[_Ends, list[tuple[_Ends, list[bytes]]]]] = []
        for resource, scopes in list(self._resources.items()):
            of_resource: list[tuple[_Ends, list[bytes]]] = []
            for scope, items in list(scopes.items()):
                if items and taken < at_most:
                    some = items[: at_most - taken]
                    del items[: len(some)]
                    taken += len(some)
                    of_resource.append((scope, some))
            resources.append((resource, of_resource))
        return _request(resources), taken

    def waiting(self) -> int:
        """How many entries were appended and not taken."""
        return sum([len(items) for scopes in list(self._resources.values()) for items in list(scopes.values())])


def _request(resources: Iterable[tuple[_Ends, list[tuple[_Ends, list[bytes]]]]]) -> bytes:
    request: list[bytes] = []
    for resource, scopes in resources:
        parts: list[bytes] = []
        for scope, items in scopes:
            if items:
                content = b"".join((scope.before, *items, scope.after))
                parts += (ITEM, varint(len(content)), content)
        if parts:
            content = b"".join((resource.before, *parts, resource.after))
            request += (_ONE, varint(len(content)), content)
    return b"".join(request)


def _ends(cache: dict[int, tuple[Any, _Ends]], owner: Any, make: Callable[[Any], _Ends]) -> _Ends:
    known = cache.get(id(owner))
    if known is not None:
        return known[1]
    try:
        ends = make(owner)
    except Exception as error:  # noqa: BLE001 - its items are sent without it
        losses.left_out(make.__name__.strip("_"), type(owner).__name__, error)
        ends = _Ends(field(_ONE, b""), b"")
    if len(cache) >= MAX_KEPT:
        cache.clear()
    cache[id(owner)] = (owner, ends)
    return ends


def _resource(resource: Any) -> _Ends:
    parts: list[bytes] = []
    if resource is not None:
        FIELD_1.write(plain(resource.attributes), parts.append)
    return _Ends(field(_ONE, b"".join(parts)), _schema_url(resource))


def _scope(scope: Any) -> _Ends:
    parts: list[bytes] = []
    if scope is not None:
        if scope.name:
            parts.append(field(_NAME, utf8(scope.name)))
        if scope.version:
            parts.append(field(_VERSION, utf8(scope.version)))
        FIELD_3.write(plain(scope.attributes), parts.append)
    return _Ends(field(_ONE, b"".join(parts)), _schema_url(scope))


def _schema_url(owner: Any) -> bytes:
    url = owner.schema_url if owner is not None else None
    return field(_SCHEMA_URL, utf8(url)) if url else b""


def encoded(groups: Groups, items: int, left_out: int, whole: list[bytes]) -> Encoded:
    """The request. `whole` are requests of other encoders: protobuf reads requests one behind the other as one."""
    return Encoded(b"".join((groups.payload(), *whole)), items, left_out)


def encode_each(
    of: Iterable[_Item],
    write: Callable[[_Item], tuple[bytes, Any, Any]],
    by_stock: Callable[[list[_Item]], bytes],
    what: str,
    name_of: Callable[[_Item], str],
) -> Encoded:
    """The request of items that are written one by one; `write` gives an item's content, resource and scope.

    One that it cannot write goes to the stock encoder alone. One that this cannot write either is left out, counted in
    `losses` as `what` and named once.
    """
    groups = Groups()
    items = left_out = 0
    whole: list[bytes] = []
    last_resource = last_scope = append = None
    for item in of:
        try:
            content, resource, scope = write(item)
            if append is None or resource is not last_resource or scope is not last_scope:
                append = groups.items_of(resource, scope).append
                last_resource, last_scope = resource, scope
            size = len(content)
            append(ITEM_HEADS[size] if size < 1024 else ITEM + varint(size))
            append(content)
        except Exception as error:  # noqa: BLE001 - whatever an odd one raises, the others are sent
            try:
                whole.append(by_stock([item]))
            except Exception:  # noqa: BLE001 - nobody can write it
                left_out += 1
                losses.left_out(what, name_of(item), error)
                continue
        items += 1
    return encoded(groups, items, left_out, whole)
