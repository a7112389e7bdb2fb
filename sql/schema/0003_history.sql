-- What keeping history and withdrawing identities needs: which question the standing identity answers, and one rule
-- for what verdicts leave as it is.
ALTER TABLE listener.ledger
    ADD COLUMN identity_question bytea;
COMMENT ON COLUMN listener.ledger.identity_question IS 'Digest of the question that our identity answers, if one stands and it is not the one last asked; NULL: it is.';

CREATE FUNCTION listener.is_kept(method text, notes text, said_by_lml boolean)
    RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(notes <> 'consumer:lml-bulk', method = 'manual')
        OR method = 'manual' AND NOT coalesce(said_by_lml, false);
COMMENT ON FUNCTION listener.is_kept IS 'Whether verdicts leave an identity or a source as it is: it says "manual" and LML itself did not, or somebody else wrote notes. Without notes it is an older job''s, and may be replaced.'
