"""GTAPolicy: tool calls under versioned rules, on real images."""
