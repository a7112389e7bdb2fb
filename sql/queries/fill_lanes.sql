-- Makes a lane of each stream where there is none.
INSERT INTO listener.lane (stream)
VALUES ('library'), ('rotation')
ON CONFLICT (stream) DO NOTHING
