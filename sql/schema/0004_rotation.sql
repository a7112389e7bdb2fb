-- What warming the rotation needs: the refresh calls with what they cost Discogs (refresh), which is the budget that
-- all processes share, and how each identity stands (warmth).
CREATE TABLE listener.refresh (
    refresh_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    errand text NOT NULL CHECK (errand IN ('change', 'walk')),
    known boolean NOT NULL,
    holder text NOT NULL,
    identities int NOT NULL,
    answered int NOT NULL DEFAULT 0,
    cost int NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL DEFAULT 'infinity'
);
COMMENT ON TABLE listener.refresh IS 'Every refresh call of the last week: who made it, for how many identities, and how many Discogs calls it is taken to have cost.';
COMMENT ON COLUMN listener.refresh.known IS 'Whether its identities had answered within a week; what each of them costs is learned separately for the others.';
COMMENT ON COLUMN listener.refresh.answered IS 'Identities that LML said something of use about; 0 while the call is in flight, or if it failed.';
COMMENT ON COLUMN listener.refresh.cost IS 'Discogs calls: what is expected while the call is in flight, then what it came to.';
COMMENT ON COLUMN listener.refresh.ended_at IS 'Infinity while the call is in flight, or if its process died.';
CREATE INDEX refresh_ended ON listener.refresh (ended_at);

CREATE TABLE listener.warmth (
    identity_id int PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('warmed', 'not_found', 'not_implemented', 'error')),
    asked_at timestamptz NOT NULL,
    failures int NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE listener.warmth IS 'One row per LML identity ever refreshed: what LML said of it last, when, and how often in a row that was an error.'
