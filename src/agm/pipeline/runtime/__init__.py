"""What a process uses of the machine: devices, locks, other processes, the terminal."""
