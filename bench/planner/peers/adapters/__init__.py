"""One file per peer, run by `ask.py` inside the peer's environment.

Each has `answer(question) -> dict`: what the peer says to a user who owns the model file (or has
the hub within reach) and reads its output as its documentation says. Keys are those of
`bench.planner.answers.Answer`; what a peer cannot say is left out, with the reason under `why`.
They import nothing of moestro, and their peer only through `importlib`.
"""
