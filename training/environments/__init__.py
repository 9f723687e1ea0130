"""Where a run's environments play: in their worker, in a thread, or in a process with packages of its own."""
