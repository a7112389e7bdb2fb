"""Everything to try the listener out with: PostgreSQL, a backend, a catalogue, a simulated LML."""
