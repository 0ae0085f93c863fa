//go:build !unix

package sqlite

import (
	"errors"
	"syscall"
)

// fullDisk reports whether err is the operating system's word for a full disk:
// ERROR_HANDLE_DISK_FULL and ERROR_DISK_FULL of Windows.
func fullDisk(err error) bool {
	return errors.Is(err, syscall.Errno(39)) || errors.Is(err, syscall.Errno(112))
}
