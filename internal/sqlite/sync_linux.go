package sqlite

import (
	"os"
	"syscall"
)

// syncData has the file's data on disk, and of what is known about the file as
// much as it takes to read it.
func syncData(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
