//go:build !linux

package sqlite

import "os"

// syncData has the file on disk. On macOS that is F_FULLFSYNC.
func syncData(f *os.File) error { return f.Sync() }
