"""What is done about a database that fails: translated, retried where safe, and left alone while it is away."""
