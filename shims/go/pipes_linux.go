package tidegate

import "syscall"

// Not every architecture of Linux has dup2.
func duplicate(from, to int) error { return syscall.Dup3(from, to, 0) }
