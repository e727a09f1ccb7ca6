"""Answer shoppers' questions: cache, idempotency, single flight, charging."""
