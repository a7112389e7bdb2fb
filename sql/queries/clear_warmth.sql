-- Deletes identities that LML has not been asked about for a long time: they are no longer in rotation.
DELETE FROM listener.warmth AS w
WHERE w.asked_at < now() - %(keep)s::interval
