"""What a process needs of the machine: devices, locks, other processes, the terminal."""
