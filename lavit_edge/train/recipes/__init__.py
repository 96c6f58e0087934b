"""Training recipes. Each module holds ``RECIPE``; its docstring says what it costs, what it reaches, and the command."""
