"""The engine of robot policies that answer with chunks: batches across clients, in one thread."""
