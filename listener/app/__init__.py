"""Joins settings, adapters and engine into the commands."""
