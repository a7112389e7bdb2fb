-- Records rotation rows whose identity could not be minted or refreshed, each with when to try again.
INSERT INTO listener.rotation_failure AS g
    (row_id, failures, failure_detail, failed_at, next_ask_at)
SELECT
    f.row_id,
    f.failures,
    f.detail,
    now(),
    now() + f.ask_again * interval '1 second'
FROM unnest(
    %(row_ids)b::int[], %(failure_counts)b::int[], %(ask_agains)s::float8[], %(details)b::text[]
) AS f (row_id, failures, ask_again, detail)
ORDER BY f.row_id
ON CONFLICT (row_id) DO UPDATE
SET failures = excluded.failures,
    failure_detail = excluded.failure_detail,
    failed_at = excluded.failed_at,
    next_ask_at = excluded.next_ask_at,
    failing_since = CASE WHEN excluded.failures > 1 THEN g.failing_since ELSE excluded.failing_since END
