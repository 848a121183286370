"""What the generated parts of the docs are made of. Each function returns Markdown."""
