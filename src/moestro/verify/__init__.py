"""Is this file as good as its reference, and do its experts still route?"""
