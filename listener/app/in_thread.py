"""Work that would block the loop, done beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Do it in a thread of its own; whoever is cancelled does not wait for its end.

    Threads of `asyncio.to_thread` are waited for at the end of the loop and of the process: a
    database that does not answer would hold up Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if done.done() else result())
        except RuntimeError:
            # The loop has ended: nobody waits any more.
            return

    def run() -> None:
        try:
            found = work(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            failed = error
            tell(lambda: done.set_exception(failed))
        else:
            tell(lambda: done.set_result(found))

    Thread(target=run, name=getattr(work, "__name__", "in_thread"), daemon=True).start()
    return await done
