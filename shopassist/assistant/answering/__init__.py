"""Build the answer: facts, pros and cons, near misses and the summary."""
