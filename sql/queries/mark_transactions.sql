-- Draws an id above that of every transaction that has one. A snapshot's xmax would not do: it follows the latest
-- transaction that ended, and one that is still open may have a higher id.
SELECT pg_current_xact_id()::text::bigint AS mark
