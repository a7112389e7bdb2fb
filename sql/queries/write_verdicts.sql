-- Writes the verdicts that the ledger just accepted and settles the changes they answer.
-- Its plan is made once a session, perhaps while the tables are empty: rows are reached by key or through a hash
-- whatever the planner takes their number for. A separate statement from the acceptance: its snapshot must see what an earlier writer of the same row
-- committed while the acceptance waited for it.
WITH accepted AS MATERIALIZED (
    SELECT
        g.library_id,
        g.outcome,
        g.lml_manual
    FROM listener.ledger AS g
    WHERE g.library_id = ANY (%(library_ids)b::int[])
        AND g.ask_order = %(ask_order)s
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
    INNER JOIN accepted AS a ON a.library_id = s.library_id
),
identities AS (
    INSERT INTO {backend}.library_identity AS i
        (library_id, wikidata_qid, spotify_id, apple_music_id, last_verified_at, method, confidence,
        agreement_sources, notes)
    SELECT
        v.library_id,
        v.wikidata_qid,
        v.spotify_id,
        v.apple_music_id,
        now(),
        v.method,
        v.confidence,
        NULL,
        'consumer:lml-bulk'
    FROM unnest(
        %(identity_ids)b::int[], %(wikidata_qids)b::text[], %(spotify_ids)b::text[],
        %(apple_music_ids)b::text[], %(methods)b::text[], %(confidences)b::real[]
    ) AS v (library_id, wikidata_qid, spotify_id, apple_music_id, method, confidence)
    INNER JOIN accepted AS a ON a.library_id = v.library_id
    ORDER BY v.library_id
    ON CONFLICT (library_id) DO UPDATE
    SET wikidata_qid = excluded.wikidata_qid,
        spotify_id = excluded.spotify_id,
        apple_music_id = excluded.apple_music_id,
        last_verified_at = excluded.last_verified_at,
        method = excluded.method,
        confidence = excluded.confidence,
        agreement_sources = excluded.agreement_sources,
        notes = excluded.notes
    -- "manual" is a person's work, unless LML itself said so in a verdict that we wrote.
    WHERE i.method <> 'manual'
        OR i.notes = 'consumer:lml-bulk'
        AND 'identity' = ANY (SELECT unnest(a.lml_manual) FROM accepted AS a WHERE a.library_id = i.library_id)
),
withdrawn AS (
    DELETE FROM {backend}.library_identity_source AS s
    WHERE s.library_id = ANY (ARRAY(SELECT a.library_id FROM accepted AS a WHERE a.outcome = 'single_artist'))
        AND s.notes = 'consumer:lml-bulk'
        AND (
            s.method <> 'manual'
            OR s.source = ANY (SELECT unnest(a.lml_manual) FROM accepted AS a WHERE a.library_id = s.library_id)
        )
        AND (s.library_id, s.source) NOT IN (SELECT o.library_id, o.source FROM offered AS o)
),
evidence AS (
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
    ORDER BY o.library_id, o.source
    ON CONFLICT (library_id, source) DO UPDATE
    SET external_id = excluded.external_id,
        method = excluded.method,
        confidence = excluded.confidence,
        last_verified_at = excluded.last_verified_at,
        boost_sources = excluded.boost_sources,
        notes = excluded.notes
    WHERE s.method <> 'manual'
        OR s.notes = 'consumer:lml-bulk'
        AND s.source = ANY (SELECT unnest(a.lml_manual) FROM accepted AS a WHERE a.library_id = s.library_id)
)
DELETE FROM listener.change AS c
USING unnest(%(change_seqs)b::bigint[], %(change_rows)b::int[]) AS e (seq, row_id)
INNER JOIN accepted AS a ON a.library_id = e.row_id
WHERE c.stream = 'library'
    AND c.seq = e.seq
