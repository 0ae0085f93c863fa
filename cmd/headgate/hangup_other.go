//go:build !unix

package main

import "os"

// hangUp are the signals that have the gateway read its file again: here there
// is none.
var hangUp []os.Signal
