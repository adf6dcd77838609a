"""A policy in the terms of Azure AI Personalizer, and back: its configuration, VW's arguments."""
