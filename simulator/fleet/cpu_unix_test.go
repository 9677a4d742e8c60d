//go:build unix

package fleet_test

import (
	"syscall"
	"time"
)

// cpuTime is the processor time that the process has used, which, unlike the time on the wall, a busy machine hardly
// changes.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
