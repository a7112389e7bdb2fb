-- Settles the changes that the accepted verdicts answer, and returns how many identities stay although LML found none,
-- and which rows were not accepted because another session holds a lock on them.
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
answering AS (
    UPDATE listener.ledger AS g
    -- An identity for which LML answered "manual" was replaced: from now on that method means a person.
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
answered AS MATERIALIZED (
    SELECT e.seq
    FROM unnest(%(change_seqs)b::bigint[], %(change_rows)b::int[]) AS e (seq, row_id)
    WHERE (e.row_id IN (SELECT a.library_id FROM accepted AS a)) IS TRUE
),
settled AS (
    DELETE FROM listener.change AS c
    WHERE c.stream = 'library'
        -- Without bounds, a plan made on an empty outbox would read the whole stream and filter it by seq.
        AND c.seq BETWEEN (SELECT min(a.seq) FROM answered AS a) AND (SELECT max(a.seq) FROM answered AS a)
        AND c.seq = ANY (ARRAY(SELECT a.seq FROM answered AS a))
)
SELECT
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
                i.method, i.notes,
                i.library_id IN (SELECT a.library_id FROM accepted AS a WHERE 'identity' = ANY (a.lml_manual))
            )
    ) AS unresolved_now,
    -- They still ask the same question, and no newer one was asked.
    ARRAY(
        SELECT v.library_id
        FROM unnest(%(library_ids)b::int[], %(questions)b::bytea[]) AS v (library_id, question)
        WHERE v.library_id NOT IN (SELECT a.library_id FROM accepted AS a)
            -- Not NOT EXISTS: a plan made on an empty table would read all of it.
            AND coalesce(
                (SELECT g.ask_order FROM listener.ledger AS g WHERE g.library_id = v.library_id) <= %(ask_order)s,
                true
            )
            AND v.question = (
                SELECT listener.question_digest(
                    l.artist_name, l.album_title, l.legacy_release_id, listener.is_compilation(l.code_volume_letters)
                )
                FROM {backend}.library AS l
                WHERE l.id = v.library_id
            )
    ) AS locked
