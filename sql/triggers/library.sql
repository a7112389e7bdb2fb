-- Follows the backend's library: records inserts, and updates of what LML is asked about, in listener.change.
-- One warning a transaction, never an error, when recording fails; the sweep finds such rows.

CREATE OR REPLACE FUNCTION listener.capture_library_insert()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    recording text := current_setting('listener.recording', true);
    woken text;
BEGIN
    IF recording = 'failed' THEN
        RETURN NULL;
    END IF;

    IF recording = 'on' AND has_table_privilege(to_regclass('listener.change'), 'INSERT') THEN
        INSERT INTO listener.change (stream, row_id)
        SELECT 'library', id
        FROM new_rows;
    ELSE
        -- A subtransaction for the first change only: it leaves a lock on listener.change that keeps
        -- the table there until the end, and one per row would overflow the server's cache of them.
        BEGIN
            INSERT INTO listener.change (stream, row_id)
            SELECT 'library', id
            FROM new_rows;
            recording := set_config('listener.recording', 'on', true);
        EXCEPTION WHEN OTHERS THEN
            recording := set_config('listener.recording', 'failed', true);
            RAISE WARNING 'listener could not record a change of library: %', SQLERRM
                USING HINT = 'The write itself went on. Run: listener migrate --check';
            RETURN NULL;
        END;
    END IF;

    -- An awake daemon holds this lock and will look anyway. The insert must come first: the daemon
    -- waits, before it sleeps, for every transaction that has an id.
    IF FOUND AND pg_try_advisory_xact_lock_shared(1280528978, 1) THEN
        woken := pg_notify('listener_library', '');
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
    recording text;
    asleep boolean;
    woken text;
BEGIN
    -- A subtransaction that only compares takes no transaction id. See capture_library_insert for the rest.
    BEGIN
        IF (OLD.artist_name, OLD.album_title, OLD.code_volume_letters, OLD.legacy_release_id)
            IS NOT DISTINCT FROM (NEW.artist_name, NEW.album_title, NEW.code_volume_letters, NEW.legacy_release_id)
        THEN
            RETURN NULL;
        END IF;
        recording := current_setting('listener.recording', true);
        IF recording = 'failed' THEN
            RETURN NULL;
        END IF;
        IF (recording = 'on' AND has_table_privilege(to_regclass('listener.change'), 'INSERT')) IS NOT TRUE THEN
            INSERT INTO listener.change (stream, row_id)
            VALUES ('library', NEW.id)
            RETURNING set_config('listener.recording', 'on', true), pg_try_advisory_xact_lock_shared(1280528978, 1)
            INTO recording, asleep;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        IF current_setting('listener.recording', true) IS DISTINCT FROM 'failed' THEN
            recording := set_config('listener.recording', 'failed', true);
            RAISE WARNING 'listener could not record a change of library: %', SQLERRM
                USING HINT = 'The write itself went on. Run: listener migrate --check';
        END IF;
        RETURN NULL;
    END;

    IF asleep IS NULL THEN
        INSERT INTO listener.change (stream, row_id)
        VALUES ('library', NEW.id)
        RETURNING pg_try_advisory_xact_lock_shared(1280528978, 1) INTO asleep;
    END IF;
    IF asleep THEN
        woken := pg_notify('listener_library', '');
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
