"""Chat templates are programs out of a file: rendered in a sandbox, in a process with limits."""
