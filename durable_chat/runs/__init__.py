"""The run: from a model to the conversation's stream, by one writer at a time."""
