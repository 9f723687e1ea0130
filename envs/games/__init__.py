"""Games on text: one file per game."""
