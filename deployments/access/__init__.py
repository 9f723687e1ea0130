"""Who may call, and how often: API keys of our callers, and the limits of the API providers that we call."""
