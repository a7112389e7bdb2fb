-- Writes the identities that are new, and verifies those that LML found again; the ledger has just accepted them.
-- Locks those that LML found differently and leaves them as they are. The setting listener.unsettled of this
-- transaction lists these, and those that may have to go, for the following statements. Each of them has a snapshot of
-- its own: what they keep is what they replace, even if another session wrote it a moment ago. A session plans this
-- once, perhaps while the tables are empty: rows are reached by key or through a hash, however many the planner
-- expects. IN .. IS TRUE stays a hash where a join would become a nested loop.
WITH accepted AS MATERIALIZED (
    SELECT
        g.library_id,
        g.outcome,
        g.identity_question IS NOT NULL AS question_changed,
        'identity' = ANY (g.lml_manual) AS said_by_lml
    FROM listener.ledger AS g
    WHERE g.library_id = ANY (%(library_ids)b::int[])
        AND g.ask_order = %(ask_order)s
),
verified AS (
    INSERT INTO {backend}.library_identity AS i
        (library_id, wikidata_qid, spotify_id, apple_music_id, last_verified_at, method, confidence,
        agreement_sources, notes)
    SELECT
        f.library_id,
        f.wikidata_qid,
        f.spotify_id,
        f.apple_music_id,
        now(),
        f.method,
        f.confidence,
        NULL,
        'consumer:lml-bulk'
    FROM unnest(
        %(identity_ids)b::int[], %(wikidata_qids)b::text[], %(spotify_ids)b::text[],
        %(apple_music_ids)b::text[], %(methods)b::text[], %(confidences)b::real[]
    ) AS f (library_id, wikidata_qid, spotify_id, apple_music_id, method, confidence)
    WHERE (f.library_id IN (SELECT a.library_id FROM accepted AS a)) IS TRUE
    ORDER BY f.library_id
    ON CONFLICT (library_id) DO UPDATE
    -- All columns, although some are known to be equal: PostgreSQL writes all faster than some.
    SET wikidata_qid = excluded.wikidata_qid,
        spotify_id = excluded.spotify_id,
        apple_music_id = excluded.apple_music_id,
        last_verified_at = excluded.last_verified_at,
        method = excluded.method,
        confidence = excluded.confidence,
        agreement_sources = excluded.agreement_sources,
        notes = excluded.notes
    WHERE (i.wikidata_qid, i.spotify_id, i.apple_music_id, i.method)
        IS NOT DISTINCT FROM (excluded.wikidata_qid, excluded.spotify_id, excluded.apple_music_id, excluded.method)
        AND NOT (
            num_nonnulls(
                i.discogs_master_id, i.discogs_release_id, i.musicbrainz_release_group_mbid,
                i.musicbrainz_release_mbid, i.musicbrainz_recording_mbid
            ) > 0
            AND i.library_id IN (SELECT a.library_id FROM accepted AS a WHERE a.question_changed)
        )
        AND NOT listener.is_kept(
            i.method, i.notes, i.library_id IN (SELECT a.library_id FROM accepted AS a WHERE a.said_by_lml)
        )
    RETURNING i.library_id
)
SELECT set_config('listener.unsettled', ARRAY(
    SELECT a.library_id
    FROM accepted AS a
    WHERE CASE a.outcome
        WHEN 'single_artist' THEN a.library_id NOT IN (SELECT v.library_id FROM verified AS v)
        ELSE a.question_changed AND %(withdraw)s
    END
    ORDER BY a.library_id
)::text, true)
