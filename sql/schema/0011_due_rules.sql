-- Rules that several searches share.
CREATE FUNCTION listener.is_compilation(letters text)
    RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(letters LIKE 'Z%', false);
COMMENT ON FUNCTION listener.is_compilation IS 'Whether these volume letters mark a release of various artists.';

CREATE FUNCTION listener.reason_after(outcome text)
    RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN outcome IS NULL THEN 'never'
        WHEN outcome IN ('single_artist', 'visited_compilation') THEN 'resolved'
        ELSE 'unresolved'
    END;
COMMENT ON FUNCTION listener.reason_after IS 'Why a row is due again once an answer with this outcome is too old; without one it was never answered.';
