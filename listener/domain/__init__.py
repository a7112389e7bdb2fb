"""The rules of the listener as values and pure functions."""
