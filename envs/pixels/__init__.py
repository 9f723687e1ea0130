"""Environments that are seen as pictures: games with a screen, and worlds seen through a camera. numpy only."""
