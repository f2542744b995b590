"""How the demo model is made. Not shipped with the package."""
