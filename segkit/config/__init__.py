"""YAML configs: read, merge, bring to one spelling, check as a whole."""

from segkit.config.config import Config

__all__ = ["Config"]
