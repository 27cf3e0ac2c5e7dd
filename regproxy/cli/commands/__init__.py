"""The commands themselves: what they take, and which parts do the work."""
