"""What did the experts do? Statistics of routing, of one model and of two on the same tokens."""
