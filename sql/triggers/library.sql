-- Follows the backend's library: records inserts, and updates of what LML is asked about, in listener.change.
-- The setting listener.library is what this transaction knows: 'recorded' from its first change on, 'failed' if that
-- could not be recorded. One warning a transaction then, never an error; the sweep finds such rows.

CREATE OR REPLACE FUNCTION listener.capture_library_insert()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text := current_setting('listener.library', true);
    asleep boolean;
    told text;
BEGIN
    IF known = 'failed' THEN
        RETURN NULL;
    END IF;

    IF known = 'recorded' AND has_table_privilege(to_regclass('listener.change'), 'INSERT') THEN
        INSERT INTO listener.change (stream, row_id)
        SELECT 'library', id
        FROM new_rows;
        RETURN NULL;
    END IF;

    -- A subtransaction for the first change only: it leaves a lock on listener.change that keeps
    -- the table there until the end, and one per row would overflow the server's cache of them.
    BEGIN
        INSERT INTO listener.change (stream, row_id)
        SELECT 'library', id
        FROM new_rows;
        -- An awake daemon holds this lock and will look anyway. It is tried once, and after the insert: before it
        -- sleeps, the daemon waits for every transaction that has an id.
        asleep := FOUND
            AND set_config('listener.library', 'recorded', true) = 'recorded'
            AND pg_try_advisory_xact_lock_shared(1280528978, 1);
    EXCEPTION WHEN OTHERS THEN
        told := set_config('listener.library', 'failed', true);
        RAISE WARNING 'listener could not record a change of library: %', SQLERRM
            USING HINT = 'The write itself went on. Run: listener migrate --check';
        RETURN NULL;
    END;
    IF asleep THEN
        told := pg_notify('listener_library', '');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION listener.capture_library_update()
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
        IF (OLD.artist_name, OLD.album_title, OLD.code_volume_letters, OLD.legacy_release_id)
            IS NOT DISTINCT FROM (NEW.artist_name, NEW.album_title, NEW.code_volume_letters, NEW.legacy_release_id)
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

    known := current_setting('listener.library', true);
    IF known = 'failed' THEN
        RETURN NULL;
    END IF;
    IF known = 'recorded' AND changed IS NOT NULL AND has_table_privilege(to_regclass('listener.change'), 'INSERT') THEN
        INSERT INTO listener.change (stream, row_id)
        VALUES ('library', changed);
        RETURN NULL;
    END IF;

    -- See capture_library_insert.
    BEGIN
        INSERT INTO listener.change (stream, row_id)
        VALUES ('library', changed)
        RETURNING set_config('listener.library', 'recorded', true), pg_try_advisory_xact_lock_shared(1280528978, 1)
        INTO known, asleep;
    EXCEPTION WHEN OTHERS THEN
        told := set_config('listener.library', 'failed', true);
        RAISE WARNING 'listener could not record a change of library: %', SQLERRM
            USING HINT = 'The write itself went on. Run: listener migrate --check';
        RETURN NULL;
    END;
    IF asleep THEN
        told := pg_notify('listener_library', '');
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION listener.clear_deleted_library()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A verdict may have landed after the backend deleted the identity rows; its foreign key would
    -- stop the delete. The row is locked by now, so no further verdict can land.
    BEGIN
        DELETE FROM {backend}.library_identity_source
        WHERE library_id = OLD.id
            AND notes = 'consumer:lml-bulk';
        DELETE FROM {backend}.library_identity
        WHERE library_id = OLD.id
            AND notes = 'consumer:lml-bulk';
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'listener could not clear the identity of deleted library row %: %', OLD.id, SQLERRM
            USING HINT = 'The delete itself went on. Run: listener migrate --check';
    END;
    RETURN OLD;
END
$$;

REVOKE ALL ON FUNCTION
    listener.capture_library_insert(),
    listener.capture_library_update(),
    listener.clear_deleted_library()
FROM PUBLIC;

CREATE OR REPLACE TRIGGER listener_capture_insert
AFTER INSERT ON {backend}.library
REFERENCING NEW TABLE AS new_rows
FOR EACH STATEMENT
EXECUTE FUNCTION listener.capture_library_insert();

-- Not UPDATE OF: that looks at the SET list alone and misses what the backend's own triggers change. Nor WHEN:
-- PostgreSQL reads and plans a condition anew for every statement, which takes longer than the function.
CREATE OR REPLACE TRIGGER listener_capture_update
AFTER UPDATE ON {backend}.library
FOR EACH ROW
EXECUTE FUNCTION listener.capture_library_update();

CREATE OR REPLACE TRIGGER listener_clear_deleted
BEFORE DELETE ON {backend}.library
FOR EACH ROW
EXECUTE FUNCTION listener.clear_deleted_library();
