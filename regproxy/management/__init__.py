"""The site for people and machines."""
