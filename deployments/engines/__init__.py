"""What answers requests: the engine protocols, and one subpackage or module per kind of engine."""
