"""What an artifact will run where, and what int8 will gain: a prediction from the file alone (docs/verdict.md)."""
