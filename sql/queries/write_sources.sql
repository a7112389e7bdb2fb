-- Writes the evidence of the identities that the ledger accepted, and deletes ours that LML no longer names, and that
-- of withdrawn identities. What a person wrote stays. Evidence that LML named before, and names unchanged, is verified
-- first: an upsert locks each row before it updates it, which takes half as much WAL again.
WITH accepted AS MATERIALIZED (
    SELECT
        g.library_id,
        g.lml_manual
    FROM listener.ledger AS g
    WHERE g.library_id = ANY (%(identity_ids)b::int[] || nullif(current_setting('listener.withdrawn', true), '')::int[])
        AND g.ask_order = %(ask_order)s
),
said_by_lml AS MATERIALIZED (
    SELECT
        a.library_id,
        unnest(a.lml_manual) AS source
    FROM accepted AS a
),
offered AS MATERIALIZED (
    SELECT
        s.library_id,
        s.source,
        s.external_id,
        s.method,
        s.confidence
    FROM unnest(
        %(source_ids)b::int[], %(sources)b::text[], %(external_ids)b::text[],
        %(source_methods)b::text[], %(source_confidences)b::real[]
    ) AS s (library_id, source, external_id, method, confidence)
    WHERE (s.library_id IN (SELECT a.library_id FROM accepted AS a)) IS TRUE
),
dropped AS (
    DELETE FROM {backend}.library_identity_source AS s
    WHERE s.library_id = ANY (ARRAY(SELECT a.library_id FROM accepted AS a))
        AND s.notes = 'consumer:lml-bulk'
        AND NOT listener.is_kept(
            s.method, s.notes, (s.library_id, s.source) IN (SELECT m.library_id, m.source FROM said_by_lml AS m)
        )
        AND (s.library_id, s.source) NOT IN (SELECT o.library_id, o.source FROM offered AS o)
),
verified AS (
    UPDATE {backend}.library_identity_source AS s
    SET last_verified_at = now(),
        boost_sources = NULL,
        notes = 'consumer:lml-bulk'
    WHERE s.library_id = ANY (ARRAY(SELECT a.library_id FROM accepted AS a))
        AND (
            (s.library_id, s.source, s.external_id, s.method, s.confidence)
            IN (SELECT o.library_id, o.source, o.external_id, o.method, o.confidence FROM offered AS o)
        ) IS TRUE
        AND NOT listener.is_kept(
            s.method, s.notes, (s.library_id, s.source) IN (SELECT m.library_id, m.source FROM said_by_lml AS m)
        )
    RETURNING
        s.library_id,
        s.source
)
INSERT INTO {backend}.library_identity_source AS s
    (library_id, source, external_id, method, confidence, last_verified_at, boost_sources, notes)
SELECT
    o.library_id,
    o.source,
    o.external_id,
    o.method,
    o.confidence,
    now(),
    NULL,
    'consumer:lml-bulk'
FROM offered AS o
WHERE (o.library_id, o.source) NOT IN (SELECT v.library_id, v.source FROM verified AS v)
ORDER BY o.library_id, o.source
ON CONFLICT (library_id, source) DO UPDATE
SET external_id = excluded.external_id,
    method = excluded.method,
    confidence = excluded.confidence,
    last_verified_at = excluded.last_verified_at,
    boost_sources = excluded.boost_sources,
    notes = excluded.notes
WHERE NOT listener.is_kept(
    s.method, s.notes, (s.library_id, s.source) IN (SELECT m.library_id, m.source FROM said_by_lml AS m)
)
