"""Keeps a radio station's catalogue and its cross-catalogue identities together."""
