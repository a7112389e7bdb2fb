-- Creates a lane for each stream that has none.
INSERT INTO listener.lane (stream)
VALUES ('library'), ('rotation')
ON CONFLICT (stream) DO NOTHING
