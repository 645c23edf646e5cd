"""A fuzzer for what reads a student's bytes: honest messages, changed by chance, a frame from each number."""
