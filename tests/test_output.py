"""What is printed to nobody."""

import os

from unirl.output import drop_after_closed_pipe


def test_what_is_printed_to_a_closed_pipe_is_dropped() -> None:
    """As by `unirl sample ... | head -1`, whose images are wanted all the same; buffered or not, and at exit."""
    for buffering in (1, -1):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", buffering=buffering) as stream:
            drop_after_closed_pipe(stream)
            drop_after_closed_pipe(stream)
            for _ in range(3):
                print("an answer", file=stream)
            stream.flush()
            print("another", file=stream)
