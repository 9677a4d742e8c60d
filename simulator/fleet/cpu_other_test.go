//go:build !unix

package fleet_test

import "time"

var began = time.Now()

// cpuTime is the time on the wall where processor time cannot be had.
func cpuTime() time.Duration { return time.Since(began) }
