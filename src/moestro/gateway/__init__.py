"""One OpenAI endpoint in front of an engine.

Nothing is imported here: the verbs need `gateway.defaults` without paying for a web server.
"""
