"""Pictures of meshes and points by ray casting."""
