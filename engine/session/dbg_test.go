package session_test

import "testing"

func TestDbg(t *testing.T) {
	dbg = true
	a := proveAirtime(t, 1000, 2, 0, 1, [2]int{})
	t.Logf("%+v", a)
	dbg = false
}
