"""Where the tests take their PostgreSQL from: a server given, a container, or the wheel."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tests.server.containers import engine

_DEFAULT_IMAGE = "postgres:15"


class UnfitImageError(Exception):
    """The image asked for cannot be run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where the server comes from, in words; `url` or `image` is set, or neither for the wheel."""

    words: str
    url: str | None = None
    image: str | None = None


def choose() -> Choice:
    """Take LISTENER_TEST_DATABASE_URL, else a container if an engine answers, else the wheel.

    The container's image is LISTENER_TEST_IMAGE; set to nothing it leaves containers out. Raises
    UnfitImageError if an image that was asked for cannot be run.
    """
    url = os.environ.get("LISTENER_TEST_DATABASE_URL")  # noqa: TID251 - a setting of the tests
    if url:
        return Choice("the server of LISTENER_TEST_DATABASE_URL", url=url)
    asked = _asked_image()
    if asked == "":
        return _embedded("LISTENER_TEST_IMAGE is empty")
    image = wanted_image()
    why_not = _why_not(image)
    if why_not is None:
        return Choice(f"a container of {image} for each worker", image=image)
    if asked:
        raise UnfitImageError(
            f"LISTENER_TEST_IMAGE is {asked!r}: {why_not}; start an engine and get the image, "
            "or unset it to use the embedded server"
        )
    return _embedded(why_not)


def wanted_image() -> str:
    """Return the image to run PostgreSQL in a container of."""
    return _asked_image() or _DEFAULT_IMAGE


def _asked_image() -> str | None:
    return os.environ.get("LISTENER_TEST_IMAGE")  # noqa: TID251 - a setting of the tests


def _embedded(why: str) -> Choice:
    return Choice(f"an embedded server for each worker ({why})")


def _why_not(image: str) -> str | None:
    """Return why `image` cannot be run, or None if it can; pulls it if it is not there."""
    from docker.errors import APIError, ImageNotFound  # noqa: PLC0415 - as `engine` does

    with engine() as client:
        if client is None:
            return "no container engine answers"
        try:
            client.images.get(image)
        except ImageNotFound:
            try:
                client.images.pull(image)
            except APIError as error:
                return f"{image} cannot be pulled: {error.explanation or error}"
    return None
