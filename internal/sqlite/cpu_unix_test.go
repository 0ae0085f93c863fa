//go:build unix

package sqlite

import (
	"syscall"
	"time"
)

// cpuTime is how long this process has computed: on a machine that has other
// work it says more than the time that has passed.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
