"""The verbs. One module per verb; the only room that prints."""
