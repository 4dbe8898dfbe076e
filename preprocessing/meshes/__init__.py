"""Reading, writing and checking triangle meshes."""
