-- Tells below which id every transaction had ended, and draws an id above all that were drawn before.
-- The snapshot's xmax would not do: it follows the latest transaction that ended, and one that is still
-- open may have a higher id.
SELECT
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    pg_current_xact_id()::text::bigint AS mark
