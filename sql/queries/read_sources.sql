-- Reads the evidence behind the identity of a row of the library: whether we wrote it, and whether it is a person's
-- work, which our verdicts do not change.
SELECT
    s.source,
    s.external_id,
    s.method,
    s.confidence,
    s.last_verified_at,
    s.notes IS NOT DISTINCT FROM 'consumer:lml-bulk' AS ours,
    listener.is_kept(s.method, s.notes, s.source = ANY (g.lml_manual)) AS kept
FROM {backend}.library_identity_source AS s
LEFT JOIN listener.ledger AS g ON g.library_id = s.library_id
WHERE s.library_id = %(library_id)s
ORDER BY s.source
