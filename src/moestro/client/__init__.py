"""An OpenAI endpoint as its callers see it, whoever serves it."""
