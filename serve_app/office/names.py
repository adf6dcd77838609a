"""What the office is called in Serve, and where its pages are."""

OFFICE = "office"
OFFICE_APP = "console"
CONSOLE_PREFIX = "/console"
