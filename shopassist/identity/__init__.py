"""Callers: access tokens, guest sessions, client networks, rate limits and the server's secret."""
