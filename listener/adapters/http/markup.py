"""Builds HTML in which every text and attribute is escaped."""

from __future__ import annotations

from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Content: TypeAlias = Element | str | None


def make(tag: str, *content: Content, **attributes: str | None) -> Element:
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


def written(document: Element) -> bytes:
    """Return a whole document in UTF-8."""
    text: bytes = tostring(document, encoding="utf-8", method="html")
    return b"<!doctype html>\n" + text


def _append(element: Element, content: Content) -> None:
    if isinstance(content, Element):
        element.append(content)
    elif content is not None and len(element):
        element[-1].tail = (element[-1].tail or "") + content
    elif content is not None:
        element.text = (element.text or "") + content
