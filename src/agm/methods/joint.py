"""Plain joint training: the cross-entropy of the full output, what every method is compared with."""

from agm.methods.method import Method


class Joint(Method):
    """loss = CE(f), or the mean of another loss: for any model."""

    data_parallel = True
