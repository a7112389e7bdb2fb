-- Writes the verdicts that the ledger just accepted, keeps the states that they replace, settles the changes they
-- answer, and returns what became of identities that conflicted with them.
-- Its plan is made once a session, perhaps while the tables are empty: rows are reached by key or through a hash
-- whatever the planner takes their number for. A separate statement from the acceptance: its snapshot must see what an
-- earlier writer of the same row committed while the acceptance waited for it.
-- An identity that is new or only verified takes the short way. One that differs is locked first and then read, so that
-- what is kept is what is replaced, even if another session wrote it a moment ago. Where no history can be kept, if_history opens a
-- comment that ends at the next --*/.
WITH accepted AS MATERIALIZED (
    SELECT
        g.library_id,
        g.outcome,
        g.lml_manual,
        g.identity_question IS NOT NULL AS question_changed
    FROM listener.ledger AS g
    WHERE g.library_id = ANY (%(library_ids)b::int[])
        AND g.ask_order = %(ask_order)s
),
said AS MATERIALIZED (
    SELECT
        m.library_id,
        m.part
    FROM unnest(%(manual_ids)b::int[], %(manual_parts)b::text[]) AS m (library_id, part)
),
lml_manual AS MATERIALIZED (
    SELECT
        a.library_id,
        unnest(a.lml_manual) AS part
    FROM accepted AS a
),
found AS MATERIALIZED (
    SELECT
        v.library_id,
        v.wikidata_qid,
        v.spotify_id,
        v.apple_music_id,
        v.method,
        v.confidence,
        a.lml_manual,
        a.question_changed
    FROM unnest(
        %(identity_ids)b::int[], %(wikidata_qids)b::text[], %(spotify_ids)b::text[],
        %(apple_music_ids)b::text[], %(methods)b::text[], %(confidences)b::real[]
    ) AS v (library_id, wikidata_qid, spotify_id, apple_music_id, method, confidence)
    INNER JOIN accepted AS a ON a.library_id = v.library_id
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
    FROM found AS f
    ORDER BY f.library_id
    ON CONFLICT (library_id) DO UPDATE
    -- All columns, though some are known to be equal: PostgreSQL writes that faster than a part of them.
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
            AND i.library_id IN (SELECT f.library_id FROM found AS f WHERE f.question_changed)
        )
        AND NOT listener.is_kept(
            i.method, i.notes, (i.library_id, 'identity') IN (SELECT m.library_id, m.part FROM lml_manual AS m)
        )
    RETURNING i.library_id
),
unsettled AS MATERIALIZED (
    SELECT
        f.library_id,
        'identity' = ANY (f.lml_manual) AS said_by_lml,
        CASE WHEN f.question_changed THEN 'question_changed' ELSE 'verdict_changed' END AS reason,
        f.wikidata_qid,
        f.spotify_id,
        f.apple_music_id,
        f.method,
        f.confidence
    FROM found AS f
    WHERE f.library_id NOT IN (SELECT v.library_id FROM verified AS v)
    UNION ALL
    SELECT
        a.library_id,
        'identity' = ANY (a.lml_manual) AS said_by_lml,
        'withdrawn' AS reason,
        NULL,
        NULL,
        NULL,
        NULL,
        NULL
    FROM accepted AS a
    WHERE a.outcome <> 'single_artist'
        AND a.question_changed
        AND %(withdraw)s
),
standing AS MATERIALIZED (
    SELECT
        u.library_id,
        u.reason,
        u.wikidata_qid,
        u.spotify_id,
        u.apple_music_id,
        u.method,
        u.confidence,
        s.former,
        s.kept
    FROM unsettled AS u
    -- PostgreSQL runs this part anew for a row that somebody has just changed, and anything it read in WITH would be
    -- there twice: it reads nothing there.
    CROSS JOIN LATERAL (
        SELECT
            i AS former,
            listener.is_kept(i.method, i.notes, u.said_by_lml)
            -- What an older job left may be replaced, but nobody knows which question it answered.
            OR u.reason = 'withdrawn' AND i.notes IS NULL AS kept
        FROM {backend}.library_identity AS i
        WHERE i.library_id = u.library_id
        FOR UPDATE OF i
    ) AS s
),
{if_history}
history AS (
    INSERT INTO {backend}.library_identity_history
        (library_id, discogs_master_id, discogs_release_id, musicbrainz_release_group_mbid,
        musicbrainz_release_mbid, musicbrainz_recording_mbid, wikidata_qid, spotify_id, apple_music_id,
        last_verified_at, method, confidence, agreement_sources, notes, superseded_at, superseded_reason)
    SELECT
        s.library_id,
        (s.former).discogs_master_id,
        (s.former).discogs_release_id,
        (s.former).musicbrainz_release_group_mbid,
        (s.former).musicbrainz_release_mbid,
        (s.former).musicbrainz_recording_mbid,
        (s.former).wikidata_qid,
        (s.former).spotify_id,
        (s.former).apple_music_id,
        (s.former).last_verified_at,
        (s.former).method,
        (s.former).confidence,
        (s.former).agreement_sources,
        (s.former).notes,
        now(),
        s.reason
    FROM standing AS s
    WHERE NOT s.kept
    ORDER BY s.library_id
),
--*/
replaced AS (
    -- What an older job knew of the release itself outlives another verdict, but not another question.
    INSERT INTO {backend}.library_identity AS i
        (library_id, discogs_master_id, discogs_release_id, musicbrainz_release_group_mbid, musicbrainz_release_mbid,
        musicbrainz_recording_mbid, wikidata_qid, spotify_id, apple_music_id, last_verified_at, method, confidence,
        agreement_sources, notes)
    SELECT
        s.library_id,
        CASE WHEN s.reason = 'verdict_changed' THEN (s.former).discogs_master_id END,
        CASE WHEN s.reason = 'verdict_changed' THEN (s.former).discogs_release_id END,
        CASE WHEN s.reason = 'verdict_changed' THEN (s.former).musicbrainz_release_group_mbid END,
        CASE WHEN s.reason = 'verdict_changed' THEN (s.former).musicbrainz_release_mbid END,
        CASE WHEN s.reason = 'verdict_changed' THEN (s.former).musicbrainz_recording_mbid END,
        s.wikidata_qid,
        s.spotify_id,
        s.apple_music_id,
        now(),
        s.method,
        s.confidence,
        NULL,
        'consumer:lml-bulk'
    FROM standing AS s
    WHERE NOT s.kept
        AND s.reason <> 'withdrawn'
    ORDER BY s.library_id
    ON CONFLICT (library_id) DO UPDATE
    SET discogs_master_id = excluded.discogs_master_id,
        discogs_release_id = excluded.discogs_release_id,
        musicbrainz_release_group_mbid = excluded.musicbrainz_release_group_mbid,
        musicbrainz_release_mbid = excluded.musicbrainz_release_mbid,
        musicbrainz_recording_mbid = excluded.musicbrainz_recording_mbid,
        wikidata_qid = excluded.wikidata_qid,
        spotify_id = excluded.spotify_id,
        apple_music_id = excluded.apple_music_id,
        last_verified_at = excluded.last_verified_at,
        method = excluded.method,
        confidence = excluded.confidence,
        agreement_sources = excluded.agreement_sources,
        notes = excluded.notes
),
withdrawn AS MATERIALIZED (
    SELECT s.library_id
    FROM standing AS s
    WHERE s.reason = 'withdrawn'
        AND NOT s.kept
),
removed AS (
    DELETE FROM {backend}.library_identity AS i
    WHERE i.library_id = ANY (ARRAY(SELECT w.library_id FROM withdrawn AS w))
),
dropped AS (
    DELETE FROM {backend}.library_identity_source AS s
    WHERE s.library_id = ANY (ARRAY(
            SELECT a.library_id
            FROM accepted AS a
            WHERE a.outcome = 'single_artist'
            UNION ALL
            SELECT w.library_id
            FROM withdrawn AS w
        ))
        AND s.notes = 'consumer:lml-bulk'
        AND NOT listener.is_kept(
            s.method, s.notes, (s.library_id, s.source) IN (SELECT m.library_id, m.part FROM lml_manual AS m)
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
    WHERE NOT listener.is_kept(
        s.method, s.notes, (s.library_id, s.source) IN (SELECT m.library_id, m.part FROM lml_manual AS m)
    )
),
answering AS (
    UPDATE listener.ledger AS g
    -- What LML called "manual" before was replaced: where that stands from now on, a person wrote it.
    SET identity_question = NULL,
        lml_manual = ARRAY(SELECT s.part FROM said AS s WHERE s.library_id = g.library_id)
    WHERE g.library_id = ANY (ARRAY(
        SELECT a.library_id
        FROM accepted AS a
        WHERE a.outcome = 'single_artist'
            AND (
                a.question_changed
                OR NOT a.lml_manual <@ ARRAY(SELECT s.part FROM said AS s WHERE s.library_id = a.library_id)
            )
    ))
),
settled AS (
    DELETE FROM listener.change AS c
    USING unnest(%(change_seqs)b::bigint[], %(change_rows)b::int[]) AS e (seq, row_id)
    INNER JOIN accepted AS a ON a.library_id = e.row_id
    WHERE c.stream = 'library'
        AND c.seq = e.seq
)
SELECT
    ARRAY(SELECT w.library_id FROM withdrawn AS w ORDER BY w.library_id) AS withdrawn,
    (SELECT count(*) FROM standing AS s WHERE s.kept) AS kept,
    (
        SELECT count(*)
        FROM {backend}.library_identity AS i
        WHERE i.library_id = ANY (ARRAY(
                SELECT a.library_id
                FROM accepted AS a
                WHERE a.outcome <> 'single_artist'
                    AND NOT (a.question_changed AND %(withdraw)s)
            ))
            AND NOT listener.is_kept(
                i.method, i.notes, (i.library_id, 'identity') IN (SELECT m.library_id, m.part FROM lml_manual AS m)
            )
    ) AS unresolved_now,
    -- Not accepted though they still ask the same and nothing newer was asked: somebody holds a lock on the row.
    ARRAY(
        SELECT v.library_id
        FROM unnest(%(library_ids)b::int[], %(questions)b::bytea[]) AS v (library_id, question)
        WHERE v.library_id NOT IN (SELECT a.library_id FROM accepted AS a)
            AND NOT EXISTS (
                SELECT
                FROM listener.ledger AS g
                WHERE g.library_id = v.library_id
                    AND g.ask_order > %(ask_order)s
            )
            AND v.question = (
                SELECT
                    listener.question_digest(
                        l.artist_name,
                        l.album_title,
                        l.legacy_release_id,
                        coalesce(l.code_volume_letters LIKE 'Z%%', false)
                    )
                FROM {backend}.library AS l
                WHERE l.id = v.library_id
            )
    ) AS locked
