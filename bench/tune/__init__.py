"""The tuner against llama.cpp's defaults, an exhaustive sweep, and made cases of speculation."""
