"""One request's way back to its caller, down to the connection itself."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

TRANSPORT = "simulator.transport"


class Exchange:
    """One request's way back: the three ASGI values and the connection below them."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deliver on this connection."""
        self.scope, self.receive, self.send = scope, receive, send

    @property
    def transport(self) -> asyncio.Transport:
        """The connection itself, for what HTTP cannot express."""
        transport: asyncio.Transport = self.scope["extensions"][TRANSPORT]
        return transport

    async def respond(self, response: Response) -> None:
        """Send a whole response."""
        await response(self.scope, self.receive, self.send)

    async def until_disconnect(self) -> None:
        """Wait until the connection is gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def begin(self, *headers: tuple[bytes, bytes]) -> None:
        """Send the head of a JSON reply; it is chunked unless a length is among `headers`."""
        fields = [(b"content-type", b"application/json"), *headers]
        await self.send({"type": "http.response.start", "status": 200, "headers": fields})

    async def piece(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body."""
        message: Message = {"type": "http.response.body", "body": body, "more_body": more}
        await self.send(message)
