"""What connects the engine with the outside: PostgreSQL, LML, logs, the demo."""
