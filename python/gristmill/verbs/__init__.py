"""One file a verb of the command line: `add_arguments(parser)` and `run(args) -> exit code`.

A verb imports what is heavy inside `run`, so that `--help` and the other verbs stay quick.
"""
