"""Other planners, asked the same questions, each in a virtual environment of its own."""
