-- Touches every release the way the daily import does, in columns that nobody is asked about.
UPDATE {backend}.library
SET on_streaming = NOT coalesce(on_streaming, false),
    last_modified = now();
