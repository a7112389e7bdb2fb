"""The loops that follow a stream, ask LML and write its verdicts."""
