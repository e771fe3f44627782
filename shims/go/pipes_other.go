//go:build unix && !linux

package tidegate

import "syscall"

func duplicate(from, to int) error { return syscall.Dup2(from, to) }
