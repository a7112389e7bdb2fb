-- What the ledger has to know of the backend's tables to see that an answer does not hold any more: the last credit of
-- a release that was asked about, and which identity stood when it was answered. A time in the future says nothing.
ALTER TABLE listener.ledger
    ADD COLUMN last_credit int,
    ADD COLUMN identity_verified_at timestamptz;
COMMENT ON COLUMN listener.ledger.last_credit IS 'Highest id among the credits of the release when it was read to be asked about, 0 if it had none; NULL: an older version asked.';
COMMENT ON COLUMN listener.ledger.identity_verified_at IS 'When the identity was verified that stood after the last answer, -infinity if none did; NULL: an older version asked.';

CREATE FUNCTION listener.is_contradicted(
    identity_verified_at timestamptz, lml_manual text[], method text, notes text, last_verified_at timestamptz
)
    RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(
        notes = 'consumer:lml-bulk'
            AND last_verified_at <> identity_verified_at
            AND NOT listener.is_kept(method, notes, 'identity' = ANY (lml_manual)),
        false
    );
COMMENT ON FUNCTION listener.is_contradicted IS 'Whether an identity of ours stands at a row that is not the one which stood when the row was last answered: somebody moved it there.';

CREATE OR REPLACE FUNCTION listener.still_holds(
    outcome text, answered_at timestamptz, lml_manual text[],
    identity_id int, method text, notes text, last_verified_at timestamptz,
    stale_after interval, retry_after interval
)
    RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(
        answered_at <= now()
            AND CASE outcome
                WHEN 'single_artist' THEN
                    identity_id IS NOT NULL
                    AND answered_at > now() - stale_after
                    AND (
                        last_verified_at > now() - stale_after AND last_verified_at <= now()
                        OR listener.is_kept(method, notes, 'identity' = ANY (lml_manual))
                    )
                WHEN 'visited_compilation' THEN answered_at > now() - stale_after
                ELSE answered_at > now() - retry_after
            END,
        false
    );
COMMENT ON FUNCTION listener.still_holds IS 'Whether the last answer about a row need not be asked again yet; what a person did is never verified by us, so its age says nothing. A time in the future was written while a clock was ahead, and counts as unknown.';

-- Logical replication of all tables lets nobody delete from a table without a key.
ALTER TABLE listener.sample
    ADD COLUMN sample_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY
