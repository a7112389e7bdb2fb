-- The schema that is the listener's own, with a record of which of its files were run.
CREATE SCHEMA IF NOT EXISTS listener;
CREATE TABLE IF NOT EXISTS listener.installed (
    name text PRIMARY KEY,
    digest text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
)
