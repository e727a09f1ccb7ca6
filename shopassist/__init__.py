"""The backend of an AI shopping assistant: questions in plain words, answers from a real catalogue."""

__version__ = "0.1.0"
