"""What the TOML files may say."""
