"""Robots in numpy: continuous actions, a camera, a state."""
