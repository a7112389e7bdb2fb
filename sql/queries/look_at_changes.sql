-- Claims changes for the one daemon that follows the stream: oldest first, without those that it already has. Also
-- returns the id below which every transaction had ended for this snapshot and, if requested, an id above all drawn so
-- far. Returns one row without a change if there is none. The anti-join stays a hashed subplan; a plan for "seq IN
-- (SELECT ... LIMIT ...)" may flip to a scan of the whole outbox.
WITH transactions AS MATERIALIZED (
    SELECT
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
        CASE WHEN %(mark)s THEN pg_current_xact_id()::text::bigint END AS mark
)
SELECT
    t.xmin,
    t.mark,
    c.seq,
    c.row_id,
    c.waited
FROM transactions AS t
LEFT JOIN LATERAL (
    SELECT
        c.seq,
        c.row_id,
        clock_timestamp() - c.changed_at AS waited
    FROM listener.change AS c
    WHERE c.stream = %(stream)s
        AND c.seq > %(after)s
        AND c.seq NOT IN (SELECT h.seq FROM unnest(%(held)b::bigint[]) AS h (seq))
    ORDER BY c.seq
    LIMIT %(limit)s
) AS c ON true
