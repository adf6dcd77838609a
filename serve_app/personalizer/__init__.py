"""Azure AI Personalizer's protocol, spoken over the same services: its clients run unchanged."""
