"""The adapters: each connects the engine with one outside library or service."""
