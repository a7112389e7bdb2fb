"""Everything to try the listener out with: PostgreSQL, a backend, a catalogue and an LML simulator."""
