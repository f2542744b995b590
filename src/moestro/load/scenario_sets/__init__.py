"""The built-in scenarios, one per file, and the text that they are made of."""
