"""The loops that follow a stream, ask LML and have its verdicts written."""
