-- What failed waits in a ledger, never beside fresh work: since when a row fails, whether it may spoil a call for others
-- and whether it is parked (ledger), the same for the rotation (rotation_failure), which release of LML was asked last
-- and what keeps the holder of a lane from its work (lane).
ALTER TABLE listener.ledger
    ADD COLUMN failing_since timestamptz,
    ADD COLUMN suspicion smallint NOT NULL DEFAULT 0,
    ADD COLUMN parked boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN listener.ledger.failing_since IS 'When the first of the failures in a row came; NULL while there is none.';
COMMENT ON COLUMN listener.ledger.suspicion IS '0; 1: suspect, it failed together with others, any of which may be the reason; 2: isolated, it failed alone and is asked alone.';
COMMENT ON COLUMN listener.ledger.parked IS 'Whether the row is set aside: it failed too often, for hours, while others were answered. It is asked again at next_ask_at, when LML has another release, when its question changes or when a person says so.';
COMMENT ON COLUMN listener.ledger.next_ask_at IS 'When to ask next.';
UPDATE listener.ledger
SET parked = next_ask_at = 'infinity',
    next_ask_at = least(next_ask_at, now() + interval '7 days'),
    failing_since = failed_at
WHERE failures > 0;
-- Each of the two searches by time has an index that the other cannot use, whatever the planner takes for granted.
DROP INDEX listener.ledger_next_ask;
CREATE INDEX ledger_next_ask ON listener.ledger (next_ask_at) WHERE failures = 0;
CREATE INDEX ledger_failing ON listener.ledger (next_ask_at, library_id) WHERE failures > 0;

CREATE TABLE listener.rotation_failure (
    row_id int PRIMARY KEY,
    failures int NOT NULL,
    failure_detail text NOT NULL,
    failing_since timestamptz NOT NULL DEFAULT now(),
    failed_at timestamptz NOT NULL,
    next_ask_at timestamptz NOT NULL
);
COMMENT ON TABLE listener.rotation_failure IS 'One row per rotation row whose identity could not be minted or refreshed since it changed: why, how often in a row, and when to try again.';

ALTER TABLE listener.lane
    ADD COLUMN fault text,
    ADD COLUMN lml_release text;
COMMENT ON COLUMN listener.lane.fault IS 'What keeps the holder from handling any change, or made it give the lane up; NULL while all goes well.';
COMMENT ON COLUMN listener.lane.lml_release IS 'Version and commit of the LML that was asked last: when they change, what failed is asked again.';
