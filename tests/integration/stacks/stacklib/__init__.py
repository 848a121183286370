"""What the command `stack` is made of. Standard library only."""
