-- How LML answers whoever follows a stream, for others to see.
ALTER TABLE listener.lane
    ADD COLUMN breaker text CHECK (breaker IN ('closed', 'open', 'half-open'));
COMMENT ON COLUMN listener.lane.breaker IS 'How the holder''s breaker towards LML stood at its last beat: closed: LML answers; open: it is left alone; half-open: one small call is tried.'
