//go:build unix

package sqlite

import (
	"os"
	"syscall"
)

// allocated is what a file takes up on the disk, -1 if nobody knows.
func allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return -1
}
