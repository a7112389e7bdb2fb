-- How lag, throughput and coverage went: what the page draws. Numbers only, and a bounded number of rows.
CREATE TABLE listener.sample (
    stream text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    seconds real NOT NULL,
    backlog int NOT NULL,
    oldest real,
    claimed int NOT NULL,
    settled int NOT NULL,
    typical real,
    worst real,
    silent real NOT NULL,
    woken boolean NOT NULL,
    coverage int[]
);
CREATE INDEX sample_stream_at ON listener.sample (stream, at);
COMMENT ON TABLE listener.sample IS 'How each stream went in the seconds before a time, written by whoever follows it; folded to five minutes when older than two hours, kept for eight days.';
COMMENT ON COLUMN listener.sample.oldest IS 'Seconds that the oldest change waited, without rows that are tried again one by one; NULL if none waited.';
COMMENT ON COLUMN listener.sample.typical IS 'Median seconds from the recording of a change until it was settled; NULL if none was. worst is the longest.';
COMMENT ON COLUMN listener.sample.silent IS 'Seconds in which LML was not asked, because it did not answer.';
COMMENT ON COLUMN listener.sample.coverage IS 'Rows of the library, now and then: resolved, unresolved, compilation, failed, parked, never asked, nameless.';
