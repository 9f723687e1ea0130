"""Ray and the Serve application around a command: start or join them, what they need, and end what was started."""
