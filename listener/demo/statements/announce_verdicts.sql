-- Notifies the demo at each commit that moves the ledger or the outbox.
CREATE SCHEMA IF NOT EXISTS demo;

CREATE OR REPLACE FUNCTION demo.announce()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('demo_moved', '');
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER demo_moved
AFTER INSERT OR UPDATE ON listener.ledger
FOR EACH STATEMENT
EXECUTE FUNCTION demo.announce();

CREATE OR REPLACE TRIGGER demo_moved
AFTER DELETE ON listener.change
FOR EACH STATEMENT
EXECUTE FUNCTION demo.announce();
