-- Writes artists and positions to rows that were found to lack them, and returns by release how many of each. Rows are
-- locked by ascending id. Each is written only if it is unchanged since it was read, and not a librarian's.
WITH locked AS MATERIALIZED (
    SELECT c.id
    FROM {backend}.compilation_track_artist AS c
    WHERE c.id = ANY (%(ids)b::int[])
    ORDER BY c.id
    FOR NO KEY UPDATE
),
written AS (
    UPDATE {backend}.compilation_track_artist AS t
    SET track_artist_id = CASE WHEN w.relinked THEN w.artist_id ELSE t.track_artist_id END,
        track_artist_link_confidence = CASE
            WHEN w.relinked THEN w.confidence ELSE t.track_artist_link_confidence
        END,
        track_artist_link_method = CASE
            WHEN w.relinked THEN 'lml_backfill' ELSE t.track_artist_link_method
        END,
        track_position = coalesce(t.track_position, w.track_position)
    FROM unnest(
        %(ids)b::int[], %(rows)b::int[], %(artist_names)b::text[], %(titles)b::text[], %(relinked)s::boolean[],
        %(artist_ids)b::int[], %(confidences)b::real[], %(positions)b::text[]
    ) AS w (id, library_id, artist_name, track_title, relinked, artist_id, confidence, track_position)
    WHERE t.id = ANY (ARRAY(SELECT l.id FROM locked AS l))
        AND t.id = w.id
        AND t.library_id = w.library_id
        AND t.artist_name = w.artist_name
        AND t.track_title IS NOT DISTINCT FROM w.track_title
        AND t.track_artist_link_method IS DISTINCT FROM 'librarian'
    RETURNING
        t.library_id,
        w.relinked AND w.artist_id IS NOT NULL AS linked,
        w.track_position IS NOT NULL AND t.track_position = w.track_position AS placed
)
SELECT
    r.library_id,
    count(*) FILTER (WHERE r.linked) AS linked,
    count(*) FILTER (WHERE r.placed) AS placed
FROM written AS r
GROUP BY r.library_id
