"""Evaluations over Personalizer's protocol: replays of the archive, asked for and looked at."""
