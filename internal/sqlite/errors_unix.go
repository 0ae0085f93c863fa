//go:build unix

package sqlite

import (
	"errors"
	"syscall"
)

// fullDisk reports whether err is the operating system's word for a full disk,
// or for a quota that is used up.
func fullDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
