"""Reports runs, windows, calls and errors to Sentry."""
