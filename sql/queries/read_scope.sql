-- Tells whether searches take in a row of the library.
SELECT %(include_null_canonical)s OR l.canonical_entity_id IS NOT NULL AS searched
FROM {backend}.library AS l
WHERE l.id = %(library_id)s
