-- Lists identities that were replaced or withdrawn, the latest first; the row itself may be gone.
SELECT
    h.library_id AS row_id,
    l.artist_name,
    l.album_title,
    l.code_volume_letters AS letters,
    h.superseded_at AS since,
    format(
        '%%s; was %%s, confidence %%s',
        replace(h.superseded_reason, '_', ' '), h.method, round(h.confidence::numeric, 2)
    ) AS why,
    h.library_id
FROM {backend}.library_identity_history AS h
LEFT JOIN {backend}.library AS l ON l.id = h.library_id
ORDER BY h.history_id DESC
LIMIT %(limit)s
OFFSET %(skip)s
