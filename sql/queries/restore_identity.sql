-- Restores a former identity as a person's work, which no verdict replaces; the current one moves to the history.
-- Returns whether it was restored, and whether it was current already; neither if the state, the release or the
-- identity changed a moment ago.
WITH state AS MATERIALIZED (
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
        h.confidence,
        h.agreement_sources
    FROM {backend}.library_identity_history AS h
    WHERE h.history_id = %(history_id)s
        AND h.library_id = %(library_id)s
        AND EXISTS (SELECT FROM {backend}.library AS l WHERE l.id = h.library_id)
),
standing AS MATERIALIZED (
    SELECT
        i AS former,
        i.method = 'manual'
            AND i.notes IS NOT DISTINCT FROM %(notes)s
            AND (
                i.discogs_master_id, i.discogs_release_id, i.musicbrainz_release_group_mbid,
                i.musicbrainz_release_mbid, i.musicbrainz_recording_mbid,
                i.wikidata_qid, i.spotify_id, i.apple_music_id
            ) IS NOT DISTINCT FROM (
                s.discogs_master_id, s.discogs_release_id, s.musicbrainz_release_group_mbid,
                s.musicbrainz_release_mbid, s.musicbrainz_recording_mbid,
                s.wikidata_qid, s.spotify_id, s.apple_music_id
            ) AS same
    FROM {backend}.library_identity AS i
    INNER JOIN state AS s ON s.library_id = i.library_id
    FOR UPDATE OF i
),
history AS (
    INSERT INTO {backend}.library_identity_history
        (library_id, discogs_master_id, discogs_release_id, musicbrainz_release_group_mbid,
        musicbrainz_release_mbid, musicbrainz_recording_mbid, wikidata_qid, spotify_id, apple_music_id,
        last_verified_at, method, confidence, agreement_sources, notes, superseded_at, superseded_reason)
    SELECT
        (s.former).library_id,
        (s.former).discogs_master_id,
        (s.former).discogs_release_id,
        (s.former).musicbrainz_release_group_mbid,
        (s.former).musicbrainz_release_mbid,
        (s.former).musicbrainz_recording_mbid,
        (s.former).wikidata_qid,
        (s.former).spotify_id,
        (s.former).apple_music_id,
        (s.former).last_verified_at,
        (s.former).method,
        (s.former).confidence,
        (s.former).agreement_sources,
        (s.former).notes,
        now(),
        'restored'
    FROM standing AS s
    WHERE NOT s.same
),
restored AS (
    INSERT INTO {backend}.library_identity AS i
        (library_id, discogs_master_id, discogs_release_id, musicbrainz_release_group_mbid,
        musicbrainz_release_mbid, musicbrainz_recording_mbid, wikidata_qid, spotify_id, apple_music_id,
        last_verified_at, method, confidence, agreement_sources, notes)
    SELECT
        s.library_id,
        s.discogs_master_id,
        s.discogs_release_id,
        s.musicbrainz_release_group_mbid,
        s.musicbrainz_release_mbid,
        s.musicbrainz_recording_mbid,
        s.wikidata_qid,
        s.spotify_id,
        s.apple_music_id,
        now(),
        'manual',
        s.confidence,
        s.agreement_sources,
        %(notes)s
    FROM state AS s
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
    -- One that came after our snapshot was not kept, and is not replaced.
    WHERE EXISTS (SELECT FROM standing AS s WHERE NOT s.same)
    RETURNING i.library_id
)
SELECT
    EXISTS (SELECT FROM restored) AS restored,
    EXISTS (SELECT FROM standing AS s WHERE s.same) AS same
