-- Writes minted identities into rotation rows that still lack one and still have the Discogs release it was minted
-- for; returns for each row whether it was written. Skips locked and deleted rows. The triggers ignore what this
-- transaction writes.
WITH ours AS MATERIALIZED (
    SELECT set_config('listener.own_write', 'on', true) AS own_write
),
free AS MATERIALIZED (
    SELECT
        r.id,
        r.lml_identity_id,
        r.discogs_release_id
    FROM {backend}.rotation AS r
    WHERE r.id = ANY (%(row_ids)b::int[])
    ORDER BY r.id
    FOR NO KEY UPDATE SKIP LOCKED
),
filled AS (
    UPDATE {backend}.rotation AS r
    SET lml_identity_id = m.identity_id
    FROM unnest(%(row_ids)b::int[], %(release_ids)b::int[], %(identity_ids)b::int[])
        AS m (row_id, release_id, identity_id)
    CROSS JOIN ours AS o
    INNER JOIN free AS f
        ON f.id = m.row_id
        AND o.own_write = 'on'
        AND f.lml_identity_id IS NULL
        AND f.discogs_release_id = m.release_id
    WHERE r.id = f.id
        AND r.id = ANY (%(row_ids)b::int[])
    RETURNING r.id
)
SELECT
    f.id,
    f.id IN (SELECT w.id FROM filled AS w) AS written
FROM free AS f
