"""What a run reports: metrics with their meanings, where they go, intervals and plots."""
