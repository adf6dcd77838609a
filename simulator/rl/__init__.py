"""Training by reinforcement learning, through RLlib."""
