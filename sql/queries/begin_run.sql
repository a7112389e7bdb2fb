-- Records the start of a run.
INSERT INTO listener.run (kind, cause, holder)
VALUES (%(kind)s, %(cause)s, %(holder)s)
RETURNING run_id
