"""Data on disk that serving and training share: run folders, model folders, episode files."""
