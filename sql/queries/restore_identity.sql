-- Restores a former identity as a person's work, which no verdict replaces; the current one is locked, and moves to the
-- history. Returns the row unless the former identity or the release is gone, or another identity came in between.
WITH kept AS (
    INSERT INTO {backend}.library_identity_history
        (library_id, discogs_master_id, discogs_release_id, musicbrainz_release_group_mbid,
        musicbrainz_release_mbid, musicbrainz_recording_mbid, wikidata_qid, spotify_id, apple_music_id,
        last_verified_at, method, confidence, agreement_sources, notes, superseded_at, superseded_reason)
    SELECT
        i.library_id,
        i.discogs_master_id,
        i.discogs_release_id,
        i.musicbrainz_release_group_mbid,
        i.musicbrainz_release_mbid,
        i.musicbrainz_recording_mbid,
        i.wikidata_qid,
        i.spotify_id,
        i.apple_music_id,
        i.last_verified_at,
        i.method,
        i.confidence,
        i.agreement_sources,
        i.notes,
        now(),
        'restored'
    FROM {backend}.library_identity AS i
    INNER JOIN {backend}.library_identity_history AS h ON h.library_id = i.library_id
    WHERE i.library_id = %(library_id)s
        AND h.history_id = %(history_id)s
        AND %(stood)s
)
INSERT INTO {backend}.library_identity AS i
    (library_id, discogs_master_id, discogs_release_id, musicbrainz_release_group_mbid, musicbrainz_release_mbid,
    musicbrainz_recording_mbid, wikidata_qid, spotify_id, apple_music_id, last_verified_at, method, confidence,
    agreement_sources, notes)
SELECT
    h.library_id,
    h.discogs_master_id,
    h.discogs_release_id,
    h.musicbrainz_release_group_mbid,
    h.musicbrainz_release_mbid,
    h.musicbrainz_recording_mbid,
    h.wikidata_qid,
    h.spotify_id,
    h.apple_music_id,
    now(),
    'manual',
    h.confidence,
    h.agreement_sources,
    %(notes)s
FROM {backend}.library_identity_history AS h
WHERE h.library_id = %(library_id)s
    AND h.history_id = %(history_id)s
    AND EXISTS (SELECT FROM {backend}.library AS l WHERE l.id = h.library_id)
ON CONFLICT (library_id) DO UPDATE
SET discogs_master_id = excluded.discogs_master_id,
    discogs_release_id = excluded.discogs_release_id,
    musicbrainz_release_group_mbid = excluded.musicbrainz_release_group_mbid,
    musicbrainz_release_mbid = excluded.musicbrainz_release_mbid,
    musicbrainz_recording_mbid = excluded.musicbrainz_recording_mbid,
    wikidata_qid = excluded.wikidata_qid,
    spotify_id = excluded.spotify_id,
    apple_music_id = excluded.apple_music_id,
    last_verified_at = excluded.last_verified_at,
    method = excluded.method,
    confidence = excluded.confidence,
    agreement_sources = excluded.agreement_sources,
    notes = excluded.notes
-- An identity that was written after the lock was taken is not in the history, so it stays.
WHERE %(stood)s
RETURNING i.library_id
