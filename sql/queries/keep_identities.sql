-- Copies the identities that are about to be replaced or withdrawn to the backend's history. They are locked.
INSERT INTO {backend}.library_identity_history
    (library_id, discogs_master_id, discogs_release_id, musicbrainz_release_group_mbid, musicbrainz_release_mbid,
    musicbrainz_recording_mbid, wikidata_qid, spotify_id, apple_music_id, last_verified_at, method, confidence,
    agreement_sources, notes, superseded_at, superseded_reason)
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
    CASE
        WHEN g.outcome <> 'single_artist' THEN 'withdrawn'
        WHEN g.identity_question IS NOT NULL THEN 'question_changed'
        ELSE 'verdict_changed'
    END
FROM {backend}.library_identity AS i
CROSS JOIN LATERAL (
    SELECT
        l.outcome,
        l.identity_question
    FROM listener.ledger AS l
    WHERE l.library_id = i.library_id
    OFFSET 0
) AS g
WHERE i.library_id = ANY (
        nullif(current_setting('listener.replaced', true), '')::int[]
        || nullif(current_setting('listener.withdrawn', true), '')::int[]
    )
ORDER BY i.library_id
