"""Who is told what: drift grouped by cause, decided once per state, kept in an outbox, delivered at least once."""
