"""From chat messages to token ids and back: the one place that knows a chat template."""
