"""Serving: policy replicas around vLLM on Ray Serve, weight versions, and the clients that talk to them."""
