-- Records a refresh call with its expected cost.
INSERT INTO listener.refresh (errand, known, holder, identities, cost, started_at)
VALUES (%(errand)s, %(known)s, %(holder)s, %(identities)s, %(cost)s, clock_timestamp())
RETURNING refresh_id
