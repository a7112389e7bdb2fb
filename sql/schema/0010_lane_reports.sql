-- What all who look are told of a stream: since when it is followed, whether its loops turn and wake-ups arrive, and
-- what LML does instead of answering (lane); how old warmth is (warmth). The last run of each kind is looked up often.
ALTER TABLE listener.lane
    ADD COLUMN held_since timestamptz,
    ADD COLUMN turned_at timestamptz,
    ADD COLUMN woken boolean,
    ADD COLUMN lml_trouble text,
    ADD COLUMN lml_trouble_since timestamptz,
    ADD COLUMN lml_next_try timestamptz;
COMMENT ON COLUMN listener.lane.held_since IS 'When the holder took the lane.';
COMMENT ON COLUMN listener.lane.turned_at IS 'When the slower of the holder''s loops last turned, as of its last beat.';
COMMENT ON COLUMN listener.lane.woken IS 'Whether wake-ups reached the holder at its last beat.';
COMMENT ON COLUMN listener.lane.lml_trouble IS 'What LML does instead of answering, such as "answered 503"; NULL while it answers.';
COMMENT ON COLUMN listener.lane.lml_trouble_since IS 'When the holder first reported trouble with LML; a change of its cause does not reset it.';
COMMENT ON COLUMN listener.lane.lml_next_try IS 'When the holder asks LML again; in the past: it is being asked.';
ALTER TABLE listener.warmth
    ADD COLUMN renewed_at timestamptz NOT NULL DEFAULT now();
UPDATE listener.warmth SET renewed_at = asked_at;
COMMENT ON COLUMN listener.warmth.renewed_at IS 'When LML last said something of use of the identity, or was first asked about it.';
CREATE INDEX run_kind ON listener.run (kind, started_at)
