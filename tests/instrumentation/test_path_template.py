"""Few names for many paths."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubscope.instrumentation.libraries.path_template import MAX_TEMPLATES, Templates, template_of


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("", "/"),
        ("/places", "/places"),
        ("/places/", "/places/"),
        ("/places/places.json", "/places/places.json"),
        ("/api/users/17/mails", "/api/users/{…}"),
        ("/users/17", "/users/{…}"),
        ("/users/17.json", "/users/{…}"),
        ("/users/ada@example.org", "/users/{…}"),
        ("/notes/my first note", "/notes/{…}"),
        ("/orders/order-20431", "/orders/{…}"),
        ("/blobs/9f86d081", "/blobs/{…}"),
        ("/sessions/6fA1bQz09xYt", "/sessions/{…}"),
        ("/api/v1", "/api/v1"),
        ("/api/v1/", "/api/v1/"),
        ("/-/static/app.css", "/-/static/{…}"),
        ("/oauth2/token", "/oauth2/token"),
    ],
)
def test_what_is_kept_and_what_is_not(path, template):
    """Words of the first two segments stay; identifiers and all that follows do not."""
    assert template_of(path) == template


@given(st.one_of(st.uuids().map(str), st.integers(0).map(str), st.binary(min_size=16, max_size=32).map(bytes.hex)))
def test_identifiers_share_a_template(identifier):
    """Numbers, UUIDs and digests give one name, whatever they are."""
    if identifier.isalpha() and len(identifier) <= 40:  # a digest of letters alone: too rare to tell from a word
        return
    assert template_of(f"/things/{identifier}") == "/things/{…}"


@given(st.text())
def test_a_template_is_short_and_stable(text):
    """Any path gives at most three segments, and a template is its own template."""
    template = template_of("/" + text)
    assert template.count("/") <= 3
    assert len(template) <= 3 + 2 * 40 + 3
    assert template_of(template) == template


def test_the_number_of_templates_is_bounded():
    """Beyond the bound there is no new one, those that are known stay, and paths that are not found make none."""
    templates = Templates()
    assert templates.known("/scan/admin", found=False) is None
    made = [templates.known(f"/{word}", found=True) for word in map(_word, range(MAX_TEMPLATES + 50))]
    assert sum(template is not None for template in made) == MAX_TEMPLATES
    assert templates.known(f"/{_word(0)}", found=True) == f"/{_word(0)}"
    assert templates.known(f"/{_word(0)}", found=False) == f"/{_word(0)}"
    assert templates.known(f"/{uuid.uuid4()}", found=True) is None


def _word(number: int) -> str:
    return "w" + "".join(chr(ord("a") + int(digit)) for digit in str(number))
