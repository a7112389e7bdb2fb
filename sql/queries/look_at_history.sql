-- Examines the backend's history of identities: whether it exists and may be read, and what prevents writing to it.
-- This uses the catalogue: a name in a schema that the role may not use would be an error.
WITH tables AS (
    SELECT
        c.oid,
        c.relname
    FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(backend)s
        AND c.relname IN ('library_identity', 'library_identity_history')
        AND c.relkind IN ('r', 'p')
),
written (name) AS (
    VALUES
        ('library_id'), ('discogs_master_id'), ('discogs_release_id'), ('musicbrainz_release_group_mbid'),
        ('musicbrainz_release_mbid'), ('musicbrainz_recording_mbid'), ('wikidata_qid'), ('spotify_id'),
        ('apple_music_id'), ('last_verified_at'), ('method'), ('confidence'), ('agreement_sources'), ('notes'),
        ('superseded_at'), ('superseded_reason')
),
history AS (
    SELECT
        a.attname,
        a.atttypid,
        a.attgenerated,
        a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS required
    FROM tables AS t
    INNER JOIN pg_attribute AS a ON a.attrelid = t.oid
    WHERE t.relname = 'library_identity_history'
        AND a.attnum > 0
        AND NOT a.attisdropped
)
SELECT
    t.oid IS NOT NULL AS present,
    coalesce(has_table_privilege(t.oid, 'SELECT'), false) AS readable,
    EXISTS (
        SELECT FROM history AS h
        WHERE h.attname = 'history_id'
            AND h.atttypid IN ('smallint'::regtype, 'int'::regtype, 'bigint'::regtype)
    ) AS numbered,
    ARRAY(
        SELECT w.name
        FROM written AS w
        WHERE w.name NOT IN (SELECT h.attname FROM history AS h)
    ) AS missing,
    ARRAY(
        SELECT h.attname::text
        FROM history AS h
        INNER JOIN written AS w ON w.name = h.attname
        LEFT JOIN tables AS c ON c.relname = 'library_identity'
        LEFT JOIN pg_attribute AS i ON i.attrelid = c.oid AND i.attname = h.attname
        WHERE h.attgenerated <> ''
            OR CASE h.attname
                WHEN 'superseded_at' THEN h.atttypid <> 'timestamptz'::regtype
                WHEN 'superseded_reason' THEN h.atttypid NOT IN ('text'::regtype, 'varchar'::regtype)
                ELSE h.atttypid <> i.atttypid
            END
    ) AS different,
    ARRAY(
        SELECT h.attname::text
        FROM history AS h
        WHERE h.required
            AND h.attname NOT IN (SELECT w.name FROM written AS w)
    ) AS unknown,
    ARRAY(
        SELECT 'INSERT on the table'
        WHERE NOT has_table_privilege(t.oid, 'INSERT')
        UNION ALL
        SELECT 'USAGE on its sequence ' || s.relname
        FROM pg_depend AS d
        INNER JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
        WHERE d.classid = 'pg_class'::regclass
            AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = t.oid
            AND d.deptype = 'a'
            -- The planner may evaluate this for other relations first, and the function accepts only sequences.
            AND CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') END
    ) AS lacking
FROM (SELECT %(backend)s) AS one
LEFT JOIN tables AS t ON t.relname = 'library_identity_history'
