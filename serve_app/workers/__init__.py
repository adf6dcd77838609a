"""The processes that answer nobody: learners, the archiver, and who keeps them alive."""
