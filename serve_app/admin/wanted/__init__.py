"""What clients have set over HTTP, and who has it served."""
