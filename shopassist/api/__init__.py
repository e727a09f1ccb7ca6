"""What routes of all nouns share: dependencies, error handlers, pagination, headers, middleware."""
