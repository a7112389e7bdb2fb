-- Reads the identity of a row of the library: whether we wrote it, and whether it is a person's work, which our
-- verdicts do not change.
SELECT
    i.method,
    i.confidence,
    i.wikidata_qid,
    i.spotify_id,
    i.apple_music_id,
    i.last_verified_at,
    i.notes IS NOT DISTINCT FROM 'consumer:lml-bulk' AS ours,
    listener.is_kept(i.method, i.notes, 'identity' = ANY (g.lml_manual)) AS kept
FROM {backend}.library_identity AS i
LEFT JOIN listener.ledger AS g ON g.library_id = i.library_id
WHERE i.library_id = %(library_id)s
