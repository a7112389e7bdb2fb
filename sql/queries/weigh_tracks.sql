-- Holds the credits that LML offers for the compilations just accepted against the rows that they would go to, notes
-- in the ledger what becomes of them, and returns by release the counts and which rows would change. It changes no row
-- of the backend: an UPDATE wakes the backend's statement triggers even if it writes nothing.
-- A credit is one (artist name, title) of a release. Each look-up is by key whatever the planner takes the number of
-- rows for; an artist is looked up only for a row that could take it, and two of one folded name are nobody: such a row
-- is written without an artist.
WITH accepted AS MATERIALIZED (
    SELECT g.library_id
    FROM listener.ledger AS g
    WHERE g.library_id = ANY (%(track_ids)b::int[])
        AND g.ask_order = %(ask_order)s
),
judged AS MATERIALIZED (
    SELECT
        k.library_id,
        k.place,
        t.id,
        k.resolved_artist_name IS NULL AS missed,
        t.track_artist_link_method IS NOT DISTINCT FROM 'librarian' AS librarian,
        a.artist_id,
        t.track_artist_id IS NOT DISTINCT FROM a.artist_id
            AND t.track_artist_link_confidence IS NOT DISTINCT FROM k.confidence
            AND t.track_artist_link_method IS NOT DISTINCT FROM 'lml_backfill' AS same,
        t.track_position IS NULL AND k.track_position IS NOT NULL AS placeable,
        t.track_position IS NULL AND k.positions > 1 AS ambiguous
    FROM unnest(
        %(key_rows)b::int[], %(key_artists)b::text[], %(key_titles)b::text[], %(key_resolved)b::text[],
        %(key_confidences)b::real[], %(key_positions)b::text[], %(key_position_counts)b::int[]
    ) WITH ORDINALITY AS k (
        library_id, artist_name, track_title, resolved_artist_name, confidence, track_position, positions, place
    )
    LEFT JOIN LATERAL (
        SELECT
            c.id,
            c.track_artist_id,
            c.track_artist_link_confidence,
            c.track_artist_link_method,
            c.track_position
        FROM {backend}.compilation_track_artist AS c
        WHERE c.library_id = k.library_id
            AND c.artist_name = k.artist_name
            AND c.track_title = k.track_title
        UNION ALL
        SELECT
            c.id,
            c.track_artist_id,
            c.track_artist_link_confidence,
            c.track_artist_link_method,
            c.track_position
        FROM {backend}.compilation_track_artist AS c
        WHERE k.track_title IS NULL
            AND c.library_id = k.library_id
            AND c.artist_name = k.artist_name
            AND c.track_title IS NULL
    ) AS t ON true
    LEFT JOIN LATERAL (
        SELECT CASE count(*) WHEN 1 THEN min(f.id) END AS artist_id
        FROM (
            SELECT b.id
            FROM {backend}.artists AS b
            WHERE t.id IS NOT NULL
                AND t.track_artist_link_method IS DISTINCT FROM 'librarian'
                AND {backend}.fold_artist_name(b.artist_name) = {backend}.fold_artist_name(k.resolved_artist_name)
            LIMIT 2
        ) AS f
    ) AS a ON true
    WHERE (k.library_id IN (SELECT s.library_id FROM accepted AS s)) IS TRUE
),
sorted AS MATERIALIZED (
    SELECT
        j.library_id,
        j.place,
        j.id,
        j.artist_id,
        CASE
            WHEN j.id IS NULL THEN 'no_cta_match'
            WHEN j.missed THEN 'no_resolved_artist'
            WHEN j.librarian THEN 'librarian'
            WHEN j.artist_id IS NULL THEN 'no_catalog_artist'
            WHEN j.same THEN 'unchanged'
            ELSE 'new'
        END AS fate,
        j.id IS NOT NULL AND NOT j.missed AND NOT j.librarian AND NOT j.same AS relinked,
        j.id IS NOT NULL AND NOT j.missed AND NOT j.librarian AND j.placeable AS placed,
        j.id IS NOT NULL AND NOT j.missed AND NOT j.librarian AND j.ambiguous AS ambiguous
    FROM judged AS j
),
counted AS MATERIALIZED (
    SELECT
        s.library_id,
        count(*) AS credits,
        count(*) FILTER (WHERE s.fate = 'no_cta_match') AS no_cta_match,
        count(*) FILTER (WHERE s.fate = 'no_resolved_artist') AS no_resolved_artist,
        count(*) FILTER (WHERE s.fate = 'librarian') AS librarian,
        count(*) FILTER (WHERE s.fate = 'no_catalog_artist') AS no_catalog_artist,
        count(*) FILTER (WHERE s.fate = 'unchanged') AS unchanged,
        count(*) FILTER (WHERE s.fate = 'new') AS new,
        count(*) FILTER (WHERE s.ambiguous) AS ambiguous,
        array_agg(s.place ORDER BY s.place) FILTER (WHERE s.relinked OR s.placed) AS places,
        array_agg(s.id ORDER BY s.place) FILTER (WHERE s.relinked OR s.placed) AS ids,
        array_agg(s.relinked ORDER BY s.place) FILTER (WHERE s.relinked OR s.placed) AS relinked,
        array_agg(s.artist_id ORDER BY s.place) FILTER (WHERE s.relinked OR s.placed) AS artist_ids,
        array_agg(s.placed ORDER BY s.place) FILTER (WHERE s.relinked OR s.placed) AS placed
    FROM sorted AS s
    GROUP BY s.library_id
),
noted AS (
    UPDATE listener.ledger AS g
    SET tracks = jsonb_build_object(
        'credits', c.credits,
        'linked', c.unchanged + c.new,
        'librarian', c.librarian,
        'no_resolved_artist', c.no_resolved_artist,
        'no_catalog_artist', c.no_catalog_artist,
        'no_cta_match', c.no_cta_match
    )
    FROM counted AS c
    WHERE g.library_id = ANY (%(track_ids)b::int[])
        AND c.library_id = g.library_id
)
SELECT
    c.library_id,
    c.unchanged,
    c.librarian,
    c.no_cta_match,
    c.no_catalog_artist,
    c.ambiguous,
    c.places,
    c.ids,
    c.relinked,
    c.artist_ids,
    c.placed
FROM counted AS c
