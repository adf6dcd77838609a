"""Work beside a learner, in threads of its process."""
