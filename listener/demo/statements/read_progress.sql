-- Reads how far the listener is: releases with a verdict, and entries waiting in the outbox.
SELECT
    (SELECT count(*) FROM listener.ledger) AS answered,
    (SELECT count(*) FROM listener.change) AS waiting;
