"""LML over HTTP: the client and the shapes of its replies."""
