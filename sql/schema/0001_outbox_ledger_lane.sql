-- The listener's own tables: what changed (outbox), what was asked and answered (ledger), who follows a stream (lane).
CREATE TABLE listener.change (
    stream text NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    row_id int NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, seq)
) WITH (
    -- The table is a queue: its dead rows are worth a vacuum long before the usual share of the table.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000
);
COMMENT ON TABLE listener.change IS 'The outbox: one entry per changed row, written by the triggers; empty when all is handled.';

CREATE SEQUENCE listener.ask_order;
COMMENT ON SEQUENCE listener.ask_order IS 'Order of questions: drawn before the rows of a question are read, so a higher number saw newer rows.';

CREATE TABLE listener.ledger (
    library_id int PRIMARY KEY,
    question bytea NOT NULL,
    ask_order bigint NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('single_artist', 'compilation', 'unresolved')),
    answered_at timestamptz NOT NULL,
    next_ask_at timestamptz NOT NULL,
    lml_manual text[] NOT NULL DEFAULT '{{}}'
) WITH (fillfactor = 70);
COMMENT ON TABLE listener.ledger IS 'One row per library row ever answered: digest of the question, outcome, when, and when to ask again.';
COMMENT ON COLUMN listener.ledger.lml_manual IS 'Where LML itself answered with the method "manual": "identity" or a source; elsewhere "manual" is a person''s work.';

CREATE TABLE listener.lane (
    stream text PRIMARY KEY,
    holder text,
    holder_pid int,
    holder_started timestamptz,
    beat bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE listener.lane IS 'Which daemon follows a stream; beat grows while it lives.';
INSERT INTO listener.lane (stream) VALUES ('library'), ('rotation');

CREATE FUNCTION listener.question_digest(artist_name text, album_title text, legacy_release_id int, various boolean)
    RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN sha256(convert_to(ROW(artist_name, album_title, legacy_release_id, various)::text, 'UTF8'));
COMMENT ON FUNCTION listener.question_digest IS 'What identifies a question to LML; two rows with the same digest would be asked the same.';
