"""What every test shares."""

import torch

# One thread: the results repeat, and tests side by side do not fight over the cores.
torch.set_num_threads(1)
