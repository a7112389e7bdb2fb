"""The pages of releases as text: what they hold, and that nothing in them is more than text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from listener.adapters.http.documents import (
    Entry,
    Found,
    Listed,
    RowStory,
    list_page,
    lists_page,
    search_page,
    story_page,
    trouble_page,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></main><base href=//evil.example>",
    "&lt;b&gt; & 'quoted' \"twice\"",
    "javascript:alert(1)",
    "`<b>bold</b>`",
    "{{ 7 * 7 }} %s {0}",
]
MEANINGS = {"low-confidence": "LML is not sure", "parked": "failed too often"}


class Parsed(HTMLParser):
    """What a browser makes of a document."""

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(document.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.links += [value for name, value in attrs if tag == "a" and name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def value(self) -> str | None:
        """What stands in the search field."""
        return next(value for name, value in self.attributes if name == "value")


def entry(text: str, library_id: int | None = 7) -> Entry:
    return Entry({"artist": text, "title": text, "why": text}, library_id)


def pages_with(text: str) -> list[bytes]:
    entries = [entry(text)]
    return [
        search_page(text, Found(entries)),
        search_page(text, Found(obstacle=text)),
        story_page(7, RowStory(text, is_there=True, lines=[("title", text), ("", text)])),
        list_page("parked", text, Listed(entries, more=False), 1),
        trouble_page(text, text),
    ]


def plain(tags: list[str]) -> list[str]:
    """Leave out what backticks become."""
    return [tag for tag in tags if tag != "code"]


@pytest.mark.parametrize("text", HOSTILE)
def test_row_contents_are_escaped_as_text(text: str) -> None:
    for document, harmless in zip(pages_with(text), pages_with("Post"), strict=True):
        seen, expected = Parsed(document), Parsed(harmless)
        assert plain(seen.tags) == plain(expected.tags)
        assert [name for name, _ in seen.attributes] == [name for name, _ in expected.attributes]
        assert seen.links == expected.links
        assert text.replace("`", "") in seen.text.replace("`", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_search_field_keeps_the_words_as_typed(text: str) -> None:
    assert Parsed(search_page(text, Found())).value == text


def test_entry_links_to_its_story_unless_it_has_none() -> None:
    listed = Listed(
        [entry("Post", 7), entry("", 8), entry(" ", 9), entry("Played", None)], more=False
    )
    seen = Parsed(list_page("parked", "failed too often", listed, 1))
    assert "Failed too often." in seen.text
    assert [link for link in seen.links if link and "library" in link] == [
        "/library/7",
        "/library/8",
        "/library/9",
    ]
    assert seen.text.count("no title") == 2


@pytest.mark.parametrize(
    ("page", "more", "expected"),
    [
        (1, False, []),
        (1, True, ["/lists/parked?page=2"]),
        (2, True, ["/lists/parked?page=1", "/lists/parked?page=3"]),
        (3, False, ["/lists/parked?page=2"]),
    ],
)
def test_pages_of_a_list_are_linked(page: int, more: bool, expected: list[str]) -> None:
    seen = Parsed(list_page("parked", "failed too often", Listed([entry("x")], more), page))
    assert [link for link in seen.links if link and "page=" in link] == expected
    assert "/lists/parked.csv" in seen.links


def test_empty_list_and_page_beyond_its_end_say_so() -> None:
    nothing = Listed([], more=False)
    assert "Nothing is on this list." in Parsed(list_page("parked", "x", nothing, 1)).text
    beyond = Parsed(list_page("parked", "x", nothing, 9))
    assert "Nothing is on this page of the list." in beyond.text
    assert "/lists/parked?page=8" in beyond.links


def test_every_list_is_named_with_what_it_holds() -> None:
    seen = Parsed(lists_page(MEANINGS))
    assert {"/lists/low-confidence", "/lists/parked"} <= {*seen.links}
    assert "Low confidence" in seen.text
    assert "failed too often" in seen.text


def test_number_may_be_an_id() -> None:
    assert "/library/1999" in Parsed(search_page("1999", Found([entry("1999")]))).links
    assert "/library/²" not in Parsed(search_page("²", Found())).links


def test_lines_of_a_story_are_grouped_under_their_label() -> None:
    lines = [("row", "7 of the library"), ("asked", "never"), ("", "see `listener why 7`")]
    seen = Parsed(story_page(7, RowStory("Björk – Post", is_there=True, lines=lines)))
    assert [seen.tags.count(tag) for tag in ("dt", "dd", "code")] == [2, 3, 2]
    assert "Björk – Post · listener" in seen.text


def test_every_page_has_the_search_field_and_says_where_it_is() -> None:
    for document in (*pages_with("Post"), lists_page(MEANINGS)):
        seen = Parsed(document)
        assert seen.tags.count("form") == 1
        assert seen.tags.count("h1") == 1
        assert {"/", "/search", "/lists"} <= {*seen.links}
    assert ("aria-current", "page") in Parsed(lists_page(MEANINGS)).attributes
