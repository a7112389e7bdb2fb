-- Follows the backend's rotation: records inserts, and updates of what decides about warming, in listener.change.
-- The setting listener.rotation is what this transaction knows: 'recorded' from its first change on, 'failed' if that
-- could not be recorded. One warning a transaction then, never an error; the sweep finds such rows.

CREATE OR REPLACE FUNCTION listener.capture_rotation_insert()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text := current_setting('listener.rotation', true);
    asleep boolean;
    told text;
BEGIN
    IF known = 'failed' OR current_setting('listener.own_write', true) = 'on' THEN
        RETURN NULL;
    END IF;

    IF known = 'recorded' AND has_table_privilege(to_regclass('listener.change'), 'INSERT') THEN
        INSERT INTO listener.change (stream, row_id)
        SELECT 'rotation', id
        FROM new_rows;
        RETURN NULL;
    END IF;

    -- A subtransaction for the first change only: it leaves a lock on listener.change that keeps
    -- the table there until the end, and one per row would overflow the server's cache of them.
    BEGIN
        INSERT INTO listener.change (stream, row_id)
        SELECT 'rotation', id
        FROM new_rows;
        -- An awake daemon holds this lock and will look anyway. It is tried once, and after the insert: before it
        -- sleeps, the daemon waits for every transaction that has an id.
        asleep := FOUND
            AND set_config('listener.rotation', 'recorded', true) = 'recorded'
            AND pg_try_advisory_xact_lock_shared(1280528978, 2);
    EXCEPTION WHEN OTHERS THEN
        told := set_config('listener.rotation', 'failed', true);
        RAISE WARNING 'listener could not record a change of rotation: %', SQLERRM
            USING HINT = 'The write itself went on. Run: listener migrate --check';
        RETURN NULL;
    END;
    IF asleep THEN
        told := pg_notify('listener_rotation', '');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION listener.capture_rotation_update()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed int;
    known text;
    asleep boolean;
    told text;
BEGIN
    -- A subtransaction that only compares takes no transaction id.
    BEGIN
        IF (OLD.lml_identity_id, OLD.discogs_release_id, OLD.album_id, OLD.kill_date)
            IS NOT DISTINCT FROM (NEW.lml_identity_id, NEW.discogs_release_id, NEW.album_id, NEW.kill_date)
        THEN
            RETURN NULL;
        END IF;
        changed := NEW.id;
    EXCEPTION WHEN OTHERS THEN
        -- What a session prepared for the columns fails from the moment in which another one alters their type: what
        -- cannot be compared counts as changed. A whole row can always be read.
        BEGIN
            changed := to_jsonb(NEW) ->> 'id';
        EXCEPTION WHEN OTHERS THEN
            told := SQLERRM;
        END;
    END;

    known := current_setting('listener.rotation', true);
    IF known = 'failed' OR current_setting('listener.own_write', true) = 'on' THEN
        RETURN NULL;
    END IF;
    IF known = 'recorded' AND changed IS NOT NULL AND has_table_privilege(to_regclass('listener.change'), 'INSERT') THEN
        INSERT INTO listener.change (stream, row_id)
        VALUES ('rotation', changed);
        RETURN NULL;
    END IF;

    -- See capture_rotation_insert.
    BEGIN
        INSERT INTO listener.change (stream, row_id)
        VALUES ('rotation', changed)
        RETURNING set_config('listener.rotation', 'recorded', true), pg_try_advisory_xact_lock_shared(1280528978, 2)
        INTO known, asleep;
    EXCEPTION WHEN OTHERS THEN
        told := set_config('listener.rotation', 'failed', true);
        RAISE WARNING 'listener could not record a change of rotation: %', SQLERRM
            USING HINT = 'The write itself went on. Run: listener migrate --check';
        RETURN NULL;
    END;
    IF asleep THEN
        told := pg_notify('listener_rotation', '');
    END IF;
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION
    listener.capture_rotation_insert(),
    listener.capture_rotation_update()
FROM PUBLIC;

CREATE OR REPLACE TRIGGER listener_capture_insert
AFTER INSERT ON {backend}.rotation
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT
EXECUTE FUNCTION listener.capture_rotation_insert();

-- Not UPDATE OF: that looks at the SET list alone and misses what the backend's own triggers change. Nor WHEN:
-- PostgreSQL reads and plans a condition anew for every statement, which takes longer than the function.
CREATE OR REPLACE TRIGGER listener_capture_update
AFTER UPDATE ON {backend}.rotation
FOR EACH ROW
EXECUTE FUNCTION listener.capture_rotation_update();
