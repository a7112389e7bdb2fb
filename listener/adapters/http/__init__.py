"""Health, metrics and the page, served in the daemon's own loop."""
