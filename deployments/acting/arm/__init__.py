"""A robot arm behind a vision-language policy: what it is asked, how its answer is read, and what that is in metres."""
