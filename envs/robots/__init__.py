"""Robots: continuous actions, a camera, a state. Reach needs numpy only, the arm MuJoCo."""
