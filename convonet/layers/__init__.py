"""What the networks of several families are made of."""
