"""Understanding a question and answering it from the catalogue."""
