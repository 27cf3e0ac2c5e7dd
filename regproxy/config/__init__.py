"""The configuration: a frozen model, and its loading from TOML."""
