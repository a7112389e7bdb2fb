-- Locks the current identity before a former one replaces it, and returns whether the restored identity would be the
-- same; no row if there is no current identity, or no such former one.
SELECT
    i.method = 'manual'
        AND i.notes IS NOT DISTINCT FROM %(notes)s
        AND (
            i.discogs_master_id, i.discogs_release_id, i.musicbrainz_release_group_mbid,
            i.musicbrainz_release_mbid, i.musicbrainz_recording_mbid,
            i.wikidata_qid, i.spotify_id, i.apple_music_id
        ) IS NOT DISTINCT FROM (
            h.discogs_master_id, h.discogs_release_id, h.musicbrainz_release_group_mbid,
            h.musicbrainz_release_mbid, h.musicbrainz_recording_mbid,
            h.wikidata_qid, h.spotify_id, h.apple_music_id
        ) AS same
FROM {backend}.library_identity AS i
INNER JOIN {backend}.library_identity_history AS h ON h.library_id = i.library_id
WHERE i.library_id = %(library_id)s
    AND h.history_id = %(history_id)s
FOR UPDATE OF i
