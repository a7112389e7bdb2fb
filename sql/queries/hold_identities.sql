-- Locks the identities that LML did not confirm, and decides which of them are replaced and which withdrawn: the
-- settings listener.replaced and listener.withdrawn list them for the following statements. The others are a person's
-- work.
WITH standing AS MATERIALIZED (
    SELECT
        i.library_id,
        i.method,
        i.notes
    FROM {backend}.library_identity AS i
    WHERE i.library_id = ANY (nullif(current_setting('listener.unsettled', true), '')::int[])
    ORDER BY i.library_id
    FOR UPDATE OF i
),
held AS MATERIALIZED (
    SELECT
        s.library_id,
        g.outcome = 'single_artist' AS replaced,
        listener.is_kept(s.method, s.notes, 'identity' = ANY (g.lml_manual))
        -- An older job's identity may be replaced, but it is unknown which question it answered.
        OR g.outcome <> 'single_artist' AND s.notes IS NULL AS kept
    FROM standing AS s
    CROSS JOIN LATERAL (
        SELECT
            l.outcome,
            l.lml_manual
        FROM listener.ledger AS l
        WHERE l.library_id = s.library_id
        OFFSET 0
    ) AS g
),
chosen AS MATERIALIZED (
    SELECT
        ARRAY(SELECT h.library_id FROM held AS h WHERE h.replaced AND NOT h.kept) AS replaced,
        ARRAY(SELECT h.library_id FROM held AS h WHERE NOT h.replaced AND NOT h.kept) AS withdrawn
)
SELECT
    c.withdrawn,
    (SELECT count(*) FROM held AS h WHERE h.kept) AS kept,
    set_config('listener.replaced', c.replaced::text, true),
    set_config('listener.withdrawn', c.withdrawn::text, true)
FROM chosen AS c
