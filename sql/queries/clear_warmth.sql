-- Forgets identities that nobody asked about for a long time: they are not played any more.
DELETE FROM listener.warmth AS w
WHERE w.asked_at < now() - %(keep)s::interval
