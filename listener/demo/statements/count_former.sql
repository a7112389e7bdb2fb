-- Counts the former identities of some releases by the reason why they were replaced.
SELECT
    h.superseded_reason AS reason,
    count(*) AS states
FROM {backend}.library_identity_history AS h
WHERE h.library_id = ANY (%(ids)s::int[])
GROUP BY h.superseded_reason
ORDER BY states DESC, reason;
