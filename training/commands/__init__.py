"""The command line: one module per group of commands, the options and tables that they share."""
