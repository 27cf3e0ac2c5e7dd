"""The domain name system as values: messages, and answers that are kept. Pure."""
