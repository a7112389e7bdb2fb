-- The backend's own triggers beside the listener's: change capture of whole rows, and a watermark.
CREATE FUNCTION {backend}.cdc_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('cdc', left(json_build_object('table', TG_TABLE_NAME, 'op', TG_OP,
        'row', CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END)::text, 7999));
    RETURN NULL;
END $$;
CREATE TRIGGER cdc_library AFTER INSERT OR UPDATE OR DELETE ON {backend}.library
    FOR EACH ROW EXECUTE FUNCTION {backend}.cdc_notify();
CREATE TRIGGER cdc_rotation AFTER INSERT OR UPDATE OR DELETE ON {backend}.rotation
    FOR EACH ROW EXECUTE FUNCTION {backend}.cdc_notify();

CREATE TABLE {backend}.watermark (name text PRIMARY KEY, touched_at timestamptz NOT NULL);
INSERT INTO {backend}.watermark VALUES ('library', now());
CREATE FUNCTION {backend}.touch_watermark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I.watermark SET touched_at = now() WHERE name = ''library''', TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;
CREATE TRIGGER library_watermark
    AFTER INSERT OR UPDATE OF artist_name, album_title, label ON {backend}.library
    FOR EACH STATEMENT EXECUTE FUNCTION {backend}.touch_watermark();
