-- Follows the backend's rotation: records inserts, and updates of what decides about warming, in listener.change.
-- One warning a transaction, never an error, when recording fails; the sweep finds such rows.

CREATE OR REPLACE FUNCTION listener.capture_rotation_insert()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    recording text := current_setting('listener.recording', true);
    woken text;
BEGIN
    IF recording = 'failed' OR current_setting('listener.own_write', true) = 'on' THEN
        RETURN NULL;
    END IF;

    IF recording = 'on' AND has_table_privilege(to_regclass('listener.change'), 'INSERT') THEN
        INSERT INTO listener.change (stream, row_id)
        SELECT 'rotation', id
        FROM new_rows;
    ELSE
        -- A subtransaction for the first change only: it leaves a lock on listener.change that keeps
        -- the table there until the end, and one per row would overflow the server's cache of them.
        BEGIN
            INSERT INTO listener.change (stream, row_id)
            SELECT 'rotation', id
            FROM new_rows;
            recording := set_config('listener.recording', 'on', true);
        EXCEPTION WHEN OTHERS THEN
            recording := set_config('listener.recording', 'failed', true);
            RAISE WARNING 'listener could not record a change of rotation: %', SQLERRM
                USING HINT = 'The write itself went on. Run: listener migrate --check';
            RETURN NULL;
        END;
    END IF;

    -- An awake daemon holds this lock and will look anyway. The insert must come first: the daemon
    -- waits, before it sleeps, for every transaction that has an id.
    IF FOUND AND pg_try_advisory_xact_lock_shared(1280528978, 2) THEN
        woken := pg_notify('listener_rotation', '');
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
    recording text;
    asleep boolean;
    woken text;
BEGIN
    -- A subtransaction that only compares takes no transaction id. See capture_rotation_insert for the rest.
    BEGIN
        IF (OLD.lml_identity_id, OLD.discogs_release_id, OLD.album_id, OLD.kill_date)
            IS NOT DISTINCT FROM (NEW.lml_identity_id, NEW.discogs_release_id, NEW.album_id, NEW.kill_date)
        THEN
            RETURN NULL;
        END IF;
        recording := current_setting('listener.recording', true);
        IF recording = 'failed' OR current_setting('listener.own_write', true) = 'on' THEN
            RETURN NULL;
        END IF;
        IF (recording = 'on' AND has_table_privilege(to_regclass('listener.change'), 'INSERT')) IS NOT TRUE THEN
            INSERT INTO listener.change (stream, row_id)
            VALUES ('rotation', NEW.id)
            RETURNING set_config('listener.recording', 'on', true), pg_try_advisory_xact_lock_shared(1280528978, 2)
            INTO recording, asleep;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        IF current_setting('listener.recording', true) IS DISTINCT FROM 'failed' THEN
            recording := set_config('listener.recording', 'failed', true);
            RAISE WARNING 'listener could not record a change of rotation: %', SQLERRM
                USING HINT = 'The write itself went on. Run: listener migrate --check';
        END IF;
        RETURN NULL;
    END;

    IF asleep IS NULL THEN
        INSERT INTO listener.change (stream, row_id)
        VALUES ('rotation', NEW.id)
        RETURNING pg_try_advisory_xact_lock_shared(1280528978, 2) INTO asleep;
    END IF;
    IF asleep THEN
        woken := pg_notify('listener_rotation', '');
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
