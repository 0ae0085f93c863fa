//go:build unix

package main

import (
	"os"
	"syscall"
)

// hangUp are the signals that have the gateway read its file again.
var hangUp = []os.Signal{syscall.SIGHUP}
