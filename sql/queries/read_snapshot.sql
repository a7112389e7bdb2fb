-- Tells which transactions had ended (below xmin) and which had not begun (from xmax on).
SELECT
    pg_snapshot_xmin(s)::text::bigint AS xmin,
    pg_snapshot_xmax(s)::text::bigint AS xmax
FROM pg_current_snapshot() AS s
