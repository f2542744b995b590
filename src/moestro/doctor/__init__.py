"""Is it safe to go live? The checklist before deployment, run instead of read."""
