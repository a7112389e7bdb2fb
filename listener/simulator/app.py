"""The simulated LML as an ASGI application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from hmac import compare_digest

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from listener.simulator.calls import Call, Question
from listener.simulator.control import control
from listener.simulator.delivery import AT_ONCE, deliver
from listener.simulator.delivery import implemented as delivered
from listener.simulator.exchange import Exchange
from listener.simulator.faults import BodyKind, Endpoint, Fault
from listener.simulator.replies import error_body
from listener.simulator.reply_faults import spoil
from listener.simulator.requests import Asked, Rejection, parse
from listener.simulator.state import Simulator

CONTROL_PATH = "/_simulator"
_ROUTES = {
    "/api/v1/identity/bulk-resolve-libraries": (Endpoint.BULK, "POST"),
    "/api/v1/cache/refresh-for-identities": (Endpoint.REFRESH, "POST"),
    "/api/v1/identity/resolve": (Endpoint.MINT, "POST"),
    "/health": (Endpoint.HEALTH, "GET"),
}
CRASH = 500
_UNKNOWN = (Endpoint.OTHER, "")


class SimulatorApp:
    """Answers LML's endpoints, and its own `/_simulator` for switches and counters."""

    def __init__(self, simulator: Simulator) -> None:
        """Serve this simulator."""
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        exchange = Exchange(scope, receive, send)
        if scope["path"] == CONTROL_PATH:
            await exchange.respond(control(self._simulator, request.method, body))
            return
        endpoint, method = _ROUTES.get(scope["path"], _UNKNOWN)
        asked = parse(endpoint, body)
        asked.rejection = self._refusal(request, method, len(body)) or asked.rejection
        call = self._record(request, asked)
        try:
            await self._simulator.gate.wait()
            call.status = await self._answer(exchange, asked, self._fault(asked, call))
        finally:
            self._simulator.calls.end(call)

    def _fault(self, asked: Asked, call: Call) -> Fault | None:
        faults = self._simulator.faults
        if not faults:
            return None
        fault = faults.take(asked.endpoint, asked.rows(), with_tracks=asked.with_tracks)
        call.fault = fault.name if fault else None
        return fault

    async def _answer(self, exchange: Exchange, asked: Asked, fault: Fault | None) -> int | None:
        """Answer this call; return the status, or None if no whole answer was sent."""
        if fault is not None:
            if fault.wait:
                await asyncio.sleep(fault.wait.total_seconds())
            if fault.name in AT_ONCE:
                return await deliver(exchange, fault, b"")
        if asked.rejection is not None:
            return await self._reject(exchange, asked.rejection)
        reply = await _unless_left(exchange, self._simulator.work(asked))
        if reply is None:
            return None
        if fault is not None and fault.name in delivered():
            return await deliver(exchange, fault, reply)
        if fault is not None:
            reply = json.dumps(spoil(json.loads(reply), fault, asked)).encode()
        ill = asked.endpoint is Endpoint.HEALTH and self._simulator.health.status == "unhealthy"
        status = 503 if ill else 200
        await exchange.respond(Response(reply, status, media_type="application/json"))
        return status

    async def _reject(self, exchange: Exchange, rejection: Rejection) -> int:
        # A crash is answered in text by the framework; only LML's own errors have LML's form.
        kind: BodyKind = self._simulator.wire.error_body
        body, media_type = error_body(rejection, "text" if rejection.status == CRASH else kind)
        await exchange.respond(Response(body, rejection.status, media_type=media_type))
        return rejection.status

    def _refusal(self, request: Request, method: str, length: int) -> Rejection | None:
        """Return why the proxy or LML refuses a request before reading what it asks."""
        simulator = self._simulator
        if simulator.max_body is not None and length > simulator.max_body:
            return Rejection(
                413, f"the proxy accepts at most {simulator.max_body} bytes, not {length}"
            )
        if not method:
            return Rejection(404, "not found")
        if request.method != method:
            return Rejection(405, "method not allowed")
        if simulator.api_key is None or method == "GET":
            return None
        return _refused_token(request.headers.get("authorization"), simulator.api_key)

    def _record(self, request: Request, asked: Asked) -> Call:
        calls = self._simulator.calls
        had_token = "authorization" in request.headers
        call = calls.begin(asked.endpoint, request.scope["path"], had_token=had_token)
        call.rows = len(asked.inputs) or len(asked.identity_ids)
        call.with_tracks = asked.with_tracks
        call.ids = asked.identity_ids
        if calls.kept_rows:
            call.questions = [
                Question(
                    row["library_id"],
                    row["artist_name"],
                    row["album_title"],
                    row.get("legacy_release_id"),
                )
                for row in asked.inputs
            ]
        calls.read(call)
        return call


async def _unless_left(exchange: Exchange, work: Coroutine[None, None, bytes]) -> bytes | None:
    """Return the result of work, or None if the caller disconnects first: LML drops it, too."""
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work)
        leaving = tasks.create_task(exchange.until_disconnect())
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        working.cancel()
    return None if working.cancelled() else working.result()


def _refused_token(header: str | None, api_key: str) -> Rejection | None:
    if not header:
        return Rejection(401, "missing token")
    if not compare_digest(header.encode(), f"Bearer {api_key}".encode()):
        return Rejection(403, "wrong token")
    return None
