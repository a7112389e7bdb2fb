-- Reads the former identities of a row of the library, the latest first; the row itself may be gone.
SELECT
    h.history_id,
    h.superseded_at,
    h.superseded_reason,
    h.method,
    h.confidence,
    h.last_verified_at,
    h.wikidata_qid,
    h.spotify_id,
    h.apple_music_id,
    h.discogs_master_id,
    h.discogs_release_id,
    h.musicbrainz_release_group_mbid::text AS musicbrainz_release_group_mbid,
    h.musicbrainz_release_mbid::text AS musicbrainz_release_mbid,
    h.musicbrainz_recording_mbid::text AS musicbrainz_recording_mbid,
    h.agreement_sources,
    h.notes
FROM {backend}.library_identity_history AS h
WHERE h.library_id = %(library_id)s
ORDER BY h.history_id DESC
