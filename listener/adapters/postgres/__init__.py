"""The database: outbox, questions, verdicts, lanes and the installation of all of them."""
