-- Compilations down to the track: whether LML has visited the tracks of one, and what became of them.
ALTER TABLE listener.ledger
    DROP CONSTRAINT ledger_outcome_check,
    ADD CONSTRAINT ledger_outcome_check
        CHECK (outcome IN ('single_artist', 'visited_compilation', 'compilation', 'unresolved')),
    ADD COLUMN tracks jsonb;
COMMENT ON COLUMN listener.ledger.outcome IS 'A compilation is visited once LML knows its tracks, or that it finds none; else its tracks are asked for again like an unresolved row.';
COMMENT ON COLUMN listener.ledger.tracks IS 'What became of the credits in the last answer about a visited compilation, counted; null if there were none.';

CREATE OR REPLACE FUNCTION listener.still_holds(
    outcome text, answered_at timestamptz, lml_manual text[],
    identity_id int, method text, notes text, last_verified_at timestamptz,
    stale_after interval, retry_after interval
)
    RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(
        CASE outcome
            WHEN 'single_artist' THEN
                identity_id IS NOT NULL
                AND answered_at > now() - stale_after
                AND (
                    last_verified_at > now() - stale_after
                    OR listener.is_kept(method, notes, 'identity' = ANY (lml_manual))
                )
            WHEN 'visited_compilation' THEN answered_at > now() - stale_after
            ELSE answered_at > now() - retry_after
        END,
        false
    );
