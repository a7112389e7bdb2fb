-- Compares the credits that LML offers for the compilations just accepted with the rows that would take them, and
-- returns what becomes of each, and what would change in its row. It changes no row itself: an UPDATE fires the
-- backend's statement triggers even if it writes nothing. A credit is one (artist name, title) of a release. Each
-- look-up is by key, however many rows the planner expects. An artist is looked up only for a row that could take it,
-- and if two share a folded name, the row is written without an artist.
WITH accepted AS MATERIALIZED (
    SELECT g.library_id
    FROM listener.ledger AS g
    WHERE g.library_id = ANY (%(track_ids)b::int[])
        AND g.ask_order = %(ask_order)s
)
SELECT
    k.place,
    CASE
        WHEN t.id IS NULL THEN 'no_cta_match'
        WHEN k.resolved_artist_name IS NULL THEN 'no_resolved_artist'
        WHEN t.track_artist_link_method = 'librarian' THEN 'librarian'
        WHEN a.id IS NULL THEN 'no_catalog_artist'
        ELSE 'linked'
    END AS fate,
    t.id AS row_id,
    w.writable
        AND (t.track_artist_id, t.track_artist_link_confidence, t.track_artist_link_method)
        IS DISTINCT FROM (a.id, k.confidence, 'lml_backfill') AS relinked,
    a.id AS artist_id,
    w.writable AND t.track_position IS NULL AND k.track_position IS NOT NULL AS placed,
    w.writable AND t.track_position IS NULL AND k.positions > 1 AS ambiguous
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
CROSS JOIN LATERAL (
    SELECT
        t.id IS NOT NULL
        AND k.resolved_artist_name IS NOT NULL
        AND t.track_artist_link_method IS DISTINCT FROM 'librarian' AS writable
) AS w
CROSS JOIN LATERAL (
    SELECT CASE count(*) WHEN 1 THEN min(f.id) END AS id
    FROM (
        SELECT b.id
        FROM {backend}.artists AS b
        WHERE w.writable
            AND {backend}.fold_artist_name(b.artist_name) = {backend}.fold_artist_name(k.resolved_artist_name)
        LIMIT 2
    ) AS f
) AS a
WHERE (k.library_id IN (SELECT s.library_id FROM accepted AS s)) IS TRUE
