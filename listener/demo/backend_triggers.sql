-- The backend's own triggers beside the listener's: change capture of whole rows, and a watermark that says when the
-- exported catalogue changed last. Its functions run with the rights of the role that writes.
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

CREATE TABLE {backend}.library_watermark (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    last_modified_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO {backend}.library_watermark DEFAULT VALUES;
CREATE FUNCTION {backend}.touch_library_watermark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE {backend}.library_watermark
    SET last_modified_at = greatest(last_modified_at, now())
    WHERE id;
    RETURN NULL;
END $$;
CREATE TRIGGER touch_library_watermark
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF
        id, artist_id, artist_name, album_title, alternate_artist_name, album_artist, label, code_volume_letters,
        code_number, legacy_release_id, artwork_url, on_streaming, add_date
    ON {backend}.library
    FOR EACH STATEMENT EXECUTE FUNCTION {backend}.touch_library_watermark();
CREATE TRIGGER touch_library_watermark_from_artists
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {backend}.artists
    FOR EACH STATEMENT EXECUTE FUNCTION {backend}.touch_library_watermark();
CREATE TRIGGER touch_library_watermark_from_rotation
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {backend}.rotation
    FOR EACH STATEMENT EXECUTE FUNCTION {backend}.touch_library_watermark();
CREATE TRIGGER touch_library_watermark_from_compilation_track_artist
    AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF id, library_id, artist_name, track_title
    ON {backend}.compilation_track_artist
    FOR EACH STATEMENT EXECUTE FUNCTION {backend}.touch_library_watermark();
