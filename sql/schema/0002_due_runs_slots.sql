-- What finding due rows needs: failures and an index on when to ask next (ledger), the sweeps that were made (run),
-- and which scheduled times were taken (slot).
ALTER TABLE listener.ledger
    ALTER COLUMN outcome DROP NOT NULL,
    ALTER COLUMN answered_at DROP NOT NULL,
    ADD COLUMN failures int NOT NULL DEFAULT 0,
    ADD COLUMN failure text,
    ADD COLUMN failure_detail text,
    ADD COLUMN failed_at timestamptz;
CREATE INDEX ledger_next_ask ON listener.ledger (next_ask_at);
COMMENT ON TABLE listener.ledger IS 'One row per library row ever asked: digest of the question, last outcome, when, failures since, and when to ask next.';
COMMENT ON COLUMN listener.ledger.next_ask_at IS 'When to ask next; infinity: the row is parked, and waits for a change of its question or for a person.';

CREATE FUNCTION listener.still_holds(
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
                    OR method = 'manual'
                    AND NOT coalesce(notes = 'consumer:lml-bulk' AND 'identity' = ANY (lml_manual), false)
                )
            ELSE answered_at > now() - retry_after
        END,
        false
    );
COMMENT ON FUNCTION listener.still_holds IS 'Whether the last answer about a row need not be asked again yet; what a person did is never verified by us, so its age says nothing.';

CREATE TABLE listener.run (
    run_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    cause text NOT NULL,
    holder text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    outcome text CHECK (outcome IN ('done', 'stopped', 'failed')),
    reason text,
    tally jsonb NOT NULL DEFAULT '{{}}'
);
COMMENT ON TABLE listener.run IS 'Every search for due rows: what it was, who made it, and its counts; without an end while it goes on, or if its process died.';
CREATE INDEX run_started ON listener.run (started_at);

CREATE TABLE listener.slot (
    job text PRIMARY KEY,
    slot timestamptz NOT NULL,
    next_at timestamptz NOT NULL,
    holder text NOT NULL,
    done boolean NOT NULL
);
COMMENT ON TABLE listener.slot IS 'The last scheduled time of each job that a daemon took, and whether it finished.'
