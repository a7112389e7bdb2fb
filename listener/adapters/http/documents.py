"""The pages on which people find a release: search, its story, worklists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias
from urllib.parse import urlencode
from xml.etree.ElementTree import Element, tostring

_PAGES = {"/": "Overview", "/search": "Search", "/lists": "Worklists"}
_MARK = ("M6 14v4m20-4v4", "M11 10v12m10-12v12", "M16 5v22")
_NOTHING, _NO_TITLE = "-", "no title"
_Content: TypeAlias = Element | str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a table: its cells by column, and the library row whose story it leads to."""

    cells: Mapping[str, str]
    library_id: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, or why it was given up."""

    entries: Sequence[Entry] = ()
    obstacle: str | None = None


@dataclass(frozen=True, slots=True)
class RowStory:
    """A row's story: `lines` in order, each with a label, which is empty where it goes on."""

    title: str
    is_there: bool
    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Listed:
    """One part of a worklist, and whether another one follows."""

    entries: Sequence[Entry]
    more: bool


def search_page(words: str, found: Found | None) -> bytes:
    """Return what was found; `found` is None if nothing was looked for."""
    return _page("Search", "/search", _search_form(words, large=True), *_results(words, found))


def story_page(library_id: int, story: RowStory) -> bytes:
    """Return the story of a row."""
    parts = groupby(_labelled(story.lines), key=lambda part: part[0])
    lines = [
        _make("div", _make("dt", label), *(_make("dd", *_with_code(line)) for _, line in part))
        for label, part in parts
    ]
    where = f"The story of row {library_id}, the same as `listener why {library_id}`."
    return _page(story.title, None, _note(where), _make("dl", *lines, class_="story card wide"))


def lists_page(meanings: Mapping[str, str]) -> bytes:
    """Return the list of worklists."""
    items = [
        _make(
            "div",
            _make("dt", _make("a", _spoken(name), href=f"/lists/{name}")),
            _make("dd", meaning),
        )
        for name, meaning in meanings.items()
    ]
    about = "Releases that a person can do something about."
    return _page("Worklists", "/lists", _note(about), _make("dl", *items, class_="story card wide"))


def list_page(name: str, meaning: str, listed: Listed, page: int) -> bytes:
    """Return a part of a worklist."""
    csv = _make("a", "Download all as CSV", href=f"/lists/{name}.csv", download=f"{name}.csv")
    nothing = "Nothing is on this list." if page == 1 else "Nothing is on this page of the list."
    return _page(
        _spoken(name),
        "/lists",
        _note(f"{meaning[:1].upper()}{meaning[1:]}."),
        _make("p", csv, class_="wide"),
        _table(f"{_spoken(name)}, page {page}", listed.entries) or _note(nothing),
        _pager(name, page, more=listed.more),
    )


def trouble_page(title: str, *what: str) -> bytes:
    """Return a page that says what is wrong, in paragraphs."""
    return _page(title, None, *(_make("p", *_with_code(each), class_="wide") for each in what))


def _page(title: str, here: str | None, *content: _Content) -> bytes:
    head = _make(
        "head",
        _make("meta", charset="utf-8"),
        _make("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _make("meta", name="color-scheme", content="light dark"),
        _make("title", f"{title} · listener"),
        _make("link", rel="icon", href="/icon.svg", type="image/svg+xml"),
        _make("link", rel="stylesheet", href="/style.css"),
    )
    links = [
        _make("a", name, href=path, aria_current="page" if path == here else None)
        for path, name in _PAGES.items()
    ]
    navigation = _make("nav", *links, aria_label="Pages", class_="pages")
    form = None if here == "/search" else _search_form("", large=False)
    brand = _make("p", _mark(), "listener", class_="brand")
    header = _make("header", brand, navigation, form, class_="top")
    main = _make("main", _make("h1", title, class_="wide title"), *content)
    return _written(_make("html", head, _make("body", header, main), lang="en"))


def _mark() -> Element:
    bars = [_make("path", d=line, class_=f"m{number}") for number, line in enumerate(_MARK, 1)]
    return _make("svg", *bars, viewBox="0 0 32 32", aria_hidden="true", class_="mark")


def _search_form(words: str, *, large: bool) -> Element:
    field = {"autocomplete": "off", "placeholder": None if large else "Find a release"}
    return _make(
        "form",
        _make("label", "Words of artist and title", for_="q", class_=None if large else "hidden"),
        _make("input", type="search", id="q", name="q", value=words, **field),
        _make("button", "Search", type="submit"),
        action="/search",
        role="search",
        class_="search wide" if large else "search",
    )


def _results(words: str, found: Found | None) -> Iterator[_Content]:
    if words.isdecimal() and words.isascii():
        link = _make("a", f"row {words} of the library", href=f"/library/{words}")
        yield _make("p", "A number may also be an id: ", link, ".", class_="wide")
    if found is None:
        yield _note("Case, accents and the order of the words do not matter.")
    elif found.obstacle is not None:
        yield _make("pre", found.obstacle, class_="wide")
    else:
        nothing = _note("No release contains all of these words.")
        yield _table("Releases that were found, the best matches first", found.entries) or nothing


def _table(caption: str, entries: Sequence[Entry]) -> Element | None:
    if not entries:
        return None
    heads = [_make("th", name, scope="col", role="columnheader") for name in entries[0].cells]
    # On narrow screens these become blocks, which without roles are not announced as a table.
    table = _make(
        "table",
        _make("caption", caption, class_="hidden"),
        _make("thead", _make("tr", *heads, role="row"), role="rowgroup"),
        _make("tbody", *map(_row, entries), role="rowgroup"),
        class_="entries",
        role="table",
    )
    return _make("div", table, class_="card wide")


def _row(entry: Entry) -> Element:
    cells = []
    for name, text in entry.cells.items():
        content: _Content = text or _NOTHING
        if name == "title" and entry.library_id is not None:
            link = text if text.strip() else _NO_TITLE
            content = _make("a", link, href=f"/library/{entry.library_id}")
        cells.append(_make("td", content, data_label=name, role="cell"))
    return _make("tr", *cells, role="row")


def _pager(name: str, page: int, *, more: bool) -> Element | None:
    def link(words: str, number: int, rel: str) -> Element:
        return _make("a", words, href=f"/lists/{name}?{urlencode({'page': number})}", rel=rel)

    before = link("Previous page", page - 1, "prev") if page > 1 else None
    after = link("Next page", page + 1, "next") if more else None
    if before is None and after is None:
        return None
    here = _make("span", f"page {page}")
    return _make("nav", before, here, after, aria_label="Parts of the list", class_="pager wide")


def _labelled(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    last = ""
    for label, line in lines:
        last = label or last
        yield last, line


def _with_code(line: str) -> Iterator[_Content]:
    """Yield a line whose commands stand in backticks."""
    for number, part in enumerate(line.split("`")):
        yield _make("code", part) if number % 2 else part


def _note(text: str) -> Element:
    return _make("p", *_with_code(text), class_="note wide")


def _spoken(name: str) -> str:
    return name.replace("-", " ").capitalize()


def _make(tag: str, *content: _Content, **attributes: str | None) -> Element:
    """Return an element with what it contains; what is None is left out.

    A name of Python stands for an attribute's with an underscore at the end: `class_`.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(name.rstrip("_").replace("_", "-"), value)
    for each in content:
        _append(element, each)
    return element


def _written(document: Element) -> bytes:
    """Return a whole document in UTF-8."""
    text: bytes = tostring(document, encoding="utf-8", method="html")
    return b"<!doctype html>\n" + text


def _append(element: Element, content: _Content) -> None:
    if isinstance(content, Element):
        element.append(content)
    elif content is not None and len(element):
        element[-1].tail = (element[-1].tail or "") + content
    elif content is not None:
        element.text = (element.text or "") + content
