"""Rules of a policy: expressions over items, the context, the user and the time."""
