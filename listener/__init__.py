"""Keeps a radio station's catalogue and its cross-catalogue identities together."""

# What pip and importlib.metadata know it by.
DISTRIBUTION = "wxyc-listener"
