-- Finds, among the next few ids, the rows that are due although the ledger's times do not say so: never asked about,
-- with another question now, with an identity that is missing, too old or from another row, or with a time in the
-- future. Leaves out rows in the outbox and those due by time. Returns one row without an id if nothing is due, and no
-- upper end after the last id. Each table repeats the bounds: a left join does not carry them. NOT IN and IN .. IS TRUE
-- stay hashed subplans; a join would become a nested loop, as nobody can guess how many rows are due or waiting.
WITH window_end AS MATERIALIZED (
    SELECT max(w.id) AS upper
    FROM (
        SELECT l.id
        FROM {backend}.library AS l
        WHERE l.id > %(after)s
        ORDER BY l.id
        LIMIT %(window)s
    ) AS w
),
found AS MATERIALIZED (
    SELECT
        l.id AS library_id,
        l.code_volume_letters,
        CASE
            WHEN g.library_id IS NULL THEN CASE
                WHEN (i.last_verified_at BETWEEN now() - %(stale_after)s::interval AND now()) IS NOT TRUE THEN 'never'
            END
            WHEN g.next_ask_at <= now() THEN NULL
            WHEN g.question <> listener.question_digest(
                l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
            ) THEN 'changed'
            WHEN g.failures > 0 THEN CASE WHEN g.failed_at > now() THEN 'failed' END
            WHEN listener.is_contradicted(g.identity_verified_at, g.lml_manual, i.method, i.notes, i.last_verified_at)
                OR NOT listener.still_holds(
                    g.outcome, g.answered_at, g.lml_manual, i.library_id, i.method, i.notes, i.last_verified_at,
                    %(stale_after)s, %(retry_after)s
                ) THEN listener.reason_after(g.outcome)
        END AS reason
    FROM {backend}.library AS l
    LEFT JOIN listener.ledger AS g
        ON g.library_id = l.id
        AND g.library_id > %(after)s
        AND g.library_id <= (SELECT e.upper FROM window_end AS e)
    LEFT JOIN {backend}.library_identity AS i
        ON i.library_id = l.id
        AND i.library_id > %(after)s
        AND i.library_id <= (SELECT e.upper FROM window_end AS e)
    WHERE l.id > %(after)s
        AND l.id <= (SELECT e.upper FROM window_end AS e)
        AND l.artist_name IS NOT NULL
        AND l.id >= %(since_id)s
        AND l.id %% %(partitions)s = %(partition)s
        AND (%(include_null_canonical)s OR l.canonical_entity_id IS NOT NULL)
),
waiting AS MATERIALIZED (
    SELECT DISTINCT c.row_id
    FROM listener.change AS c
    WHERE c.stream = 'library'
        AND (c.row_id IN (SELECT f.library_id FROM found AS f WHERE f.reason IS NOT NULL)) IS TRUE
),
free (library_id, reason, compilation) AS (
    SELECT
        f.library_id,
        f.reason,
        listener.is_compilation(f.code_volume_letters)
            OR EXISTS (SELECT FROM {backend}.compilation_track_artist AS t WHERE t.library_id = f.library_id)
    FROM found AS f
    WHERE f.reason IS NOT NULL
        AND f.library_id NOT IN (SELECT w.row_id FROM waiting AS w)
)
SELECT
    e.upper,
    f.library_id,
    f.reason,
    f.compilation
FROM window_end AS e
LEFT JOIN free AS f ON true
ORDER BY f.library_id
