"""The scheduled times of jobs, each taken by one daemon."""

from __future__ import annotations

from datetime import datetime, timedelta

from listener.adapters.postgres.connection import Pool, session
from listener.adapters.postgres.statements import query


class PostgresSlots:
    """Hands out the slots of `listener.slot`, by the database's clock."""

    def __init__(self, pool: Pool, backend: str, holder: str) -> None:
        self._pool = pool
        self._holder = holder
        self._take = query("take_slot", backend)
        self._finish = query("finish_slot", backend)

    async def take(
        self,
        job: str,
        every: timedelta,
        *,
        begins: timedelta = timedelta(),
        again: bool = False,
    ) -> datetime | None:
        """Return the present slot of a job, or None if it was taken and finished.

        With `again` it is taken all the same. Whatever was missed is caught up by one slot.
        """
        parameters = {
            "job": job,
            "every": every,
            "begins": begins,
            "holder": self._holder,
            "again": again,
        }
        async with session(self._pool) as connection:
            row = await (await connection.execute(self._take, parameters)).fetchone()
        return row[0] if row else None

    async def finish(self, job: str, slot: datetime) -> None:
        """Mark a slot that was taken as done."""
        parameters = {"job": job, "slot": slot, "holder": self._holder}
        async with session(self._pool) as connection:
            await connection.execute(self._finish, parameters)
