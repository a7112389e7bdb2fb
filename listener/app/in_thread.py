"""Work that would block the loop, done beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Thread
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Run `work` in its own thread; a cancelled caller does not wait for it to end.

    The loop and the process wait at their end for threads of `asyncio.to_thread`, so a database
    that does not answer would block Ctrl-C.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def deliver(result: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(lambda: None if done.done() else result())
        except RuntimeError:
            # The loop has ended, so there is no caller left.
            return

    def run() -> None:
        try:
            found = work(*arguments, **options)
        except Exception as error:  # noqa: BLE001 - raised again in the caller
            failed = error
            deliver(lambda: done.set_exception(failed))
        else:
            deliver(lambda: done.set_result(found))

    Thread(target=run, name=getattr(work, "__name__", "in_thread"), daemon=True).start()
    return await done
