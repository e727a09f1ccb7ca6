"""The business sentences: credits, consent, query cache, query. No SQL, no HTTP."""
