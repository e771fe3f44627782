//go:build unix

package tidegate

import (
	"os"
	"syscall"
)

// Takes the pipes of the protocol. From then on all output, also of child processes, goes to the log.
func takePipes() (jobs, answers *os.File, err error) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	defer nothing.Close()
	in, err := syscall.Dup(0)
	if err != nil {
		return nil, nil, err
	}
	out, err := syscall.Dup(1)
	if err != nil {
		return nil, nil, err
	}
	syscall.CloseOnExec(in)
	syscall.CloseOnExec(out)
	if err := duplicate(int(nothing.Fd()), 0); err != nil {
		return nil, nil, err
	}
	if err := duplicate(2, 1); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(in), "jobs"), os.NewFile(uintptr(out), "answers"), nil
}
