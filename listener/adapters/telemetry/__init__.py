"""Tells Sentry what runs, windows and errors there were."""
