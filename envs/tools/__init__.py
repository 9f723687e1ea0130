"""Function calling: calls read from text, judged as the Berkeley Function-Calling Leaderboard judges them."""
