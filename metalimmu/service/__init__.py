"""The verbs, once, with permissions, guards and audit."""
