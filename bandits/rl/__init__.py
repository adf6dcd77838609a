"""Policies trained by reinforcement learning, as they are served."""
