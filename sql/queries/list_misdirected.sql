-- Lists foreign keys of the tables that we write that refer to a table no longer in use, as they do after another
-- table was renamed over it, with the statement that redirects each.
WITH wanted (table_name, column_name, target_name) AS (
    VALUES
        ('library_identity', 'library_id', 'library'),
        ('library_identity_source', 'library_id', 'library'),
        ('compilation_track_artist', 'library_id', 'library'),
        ('compilation_track_artist', 'track_artist_id', 'artists'),
        ('rotation', 'album_id', 'library')
)
SELECT
    format('%%s of %%s refers to %%s', k.conname, w.table_name, former.relname) AS key,
    format(
        'ALTER TABLE %%I.%%I DROP CONSTRAINT %%I, ADD CONSTRAINT %%I %%s',
        %(backend)s, w.table_name, k.conname, k.conname,
        regexp_replace(
            pg_get_constraintdef(k.oid),
            'REFERENCES [^(]*',
            format('REFERENCES %%I.%%I', %(backend)s, w.target_name)
        )
    ) AS repair
FROM wanted AS w
INNER JOIN pg_namespace AS n ON n.nspname = %(backend)s
INNER JOIN pg_class AS t ON t.relnamespace = n.oid AND t.relname = w.table_name
INNER JOIN pg_class AS target ON target.relnamespace = n.oid AND target.relname = w.target_name
INNER JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attname = w.column_name
INNER JOIN pg_constraint AS k ON k.conrelid = t.oid AND k.contype = 'f' AND k.conkey = ARRAY[a.attnum]
INNER JOIN pg_class AS former ON former.oid = k.confrelid
WHERE k.confrelid <> target.oid
    AND k.conparentid = 0
ORDER BY k.conname
