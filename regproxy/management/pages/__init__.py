"""The pages for people: they show what the JSON API gives, got from the same parts."""
