"""Robot policies that answer with a chunk of actions: their model, its files, and what surrounds both."""
