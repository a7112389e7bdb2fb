"""A reply to a page of questions, to be read once the next call may go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta

from listener.adapters.lml.failures import MalformedReplyError
from listener.adapters.lml.wire import read_reply
from listener.domain.judging import Invalid
from listener.domain.verdict import Verdict

# A reply so long is read a moment later: a call that waited for this one goes out first.
_READ_LATER = 2**16
_MOMENT = timedelta(milliseconds=1)
# And one so long by a thread; any shorter, threads that take turns cost more than they gain.
_READ_ASIDE = 2**19


class BulkReply:
    """The body of an answer to a page of questions, to be read once the next call may go.

    `cache_stats` is what it says about LML's caches, empty until it was read.
    """

    def __init__(
        self,
        body: bytearray,
        unreadable: type[Exception],
        heed_contract: Callable[[object], None] | None = None,
    ) -> None:
        self.cache_stats: Mapping[str, float] = {}
        self._body = body
        self._unreadable = unreadable
        self._heed_contract = heed_contract

    async def read(self) -> list[Verdict | Invalid]:
        """Return the results; raises `unreadable` if there are none to be found in it.

        May be called once: the body, which may be of many megabytes, is not kept.
        """
        body = self._body
        if len(body) >= _READ_LATER:
            await asyncio.sleep(_MOMENT.total_seconds())
        try:
            if len(body) < _READ_ASIDE:
                reply = read_reply(body)
            else:
                # The loop goes on meanwhile: other replies come in, single changes need not wait.
                reply = await asyncio.to_thread(read_reply, body)
        except MalformedReplyError as error:
            raise self._unreadable(str(error)) from error
        finally:
            # An error may outlive its call by far, and with it all that its frames hold.
            body.clear()
        self.cache_stats = reply.cache_stats
        if self._heed_contract is not None:
            self._heed_contract(reply.tracks_contract)
        return reply.results
