"""The graph of jobs, what each result was made from, and the two engines that run them."""
