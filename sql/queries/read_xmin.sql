-- Tells below which id every transaction had ended.
SELECT
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
    NULL::bigint AS mark
