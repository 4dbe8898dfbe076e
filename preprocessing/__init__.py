"""Geometry of scans, meshes and scenes: plain functions on arrays, without Ray or torch."""
