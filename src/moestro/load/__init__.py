"""Load on an OpenAI endpoint: made requests, and what became of them."""
