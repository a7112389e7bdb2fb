-- Replaces and withdraws the identities that hold_identities.sql chose; they are locked, and already in the history if
-- there is one. What an older job knew about the release itself survives another verdict, but not another question.
WITH withdrawn AS (
    DELETE FROM {backend}.library_identity AS i
    WHERE i.library_id = ANY (nullif(current_setting('listener.withdrawn', true), '')::int[])
)
UPDATE {backend}.library_identity AS i
SET discogs_master_id = CASE WHEN g.identity_question IS NULL THEN i.discogs_master_id END,
    discogs_release_id = CASE WHEN g.identity_question IS NULL THEN i.discogs_release_id END,
    musicbrainz_release_group_mbid = CASE WHEN g.identity_question IS NULL THEN i.musicbrainz_release_group_mbid END,
    musicbrainz_release_mbid = CASE WHEN g.identity_question IS NULL THEN i.musicbrainz_release_mbid END,
    musicbrainz_recording_mbid = CASE WHEN g.identity_question IS NULL THEN i.musicbrainz_recording_mbid END,
    wikidata_qid = f.wikidata_qid,
    spotify_id = f.spotify_id,
    apple_music_id = f.apple_music_id,
    last_verified_at = now(),
    method = f.method,
    confidence = f.confidence,
    agreement_sources = NULL,
    notes = 'consumer:lml-bulk'
FROM unnest(
    %(identity_ids)b::int[], %(wikidata_qids)b::text[], %(spotify_ids)b::text[],
    %(apple_music_ids)b::text[], %(methods)b::text[], %(confidences)b::real[]
) AS f (library_id, wikidata_qid, spotify_id, apple_music_id, method, confidence)
CROSS JOIN LATERAL (
    SELECT l.identity_question
    FROM listener.ledger AS l
    WHERE l.library_id = f.library_id
    OFFSET 0
) AS g
WHERE i.library_id = f.library_id
    AND i.library_id = ANY (nullif(current_setting('listener.replaced', true), '')::int[])
