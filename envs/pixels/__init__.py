"""Worlds seen through a camera: pictures drawn in numpy, actions as a game takes them."""
