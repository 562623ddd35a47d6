"""What an organisation subscribes to: plans and seats as they stand in its file, and what they cost on which day."""
