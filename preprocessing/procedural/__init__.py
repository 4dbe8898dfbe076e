"""Shapes, rooms, buildings and moving bodies made by rule, and the scanner that sees them."""
