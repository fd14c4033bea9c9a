"""Which layers to train, and how many of their channels: what each is worth (gains.py), what it
takes (costs.py), and the best choice within limits (choice.py, chosen.py)."""
