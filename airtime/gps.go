package airtime

import "time"

// gpsEpoch is 1980-01-06 00:00:00 UTC in Unix seconds.
const gpsEpoch = 315964800

// leaps holds the instants since the GPS epoch at which UTC had just gone through a leap second, in
// Unix seconds: 1981-07-01, 1982-07-01 ... 2017-01-01.
var leaps = [...]int64{
	362793600, 394329600, 425865600, 489024000, 567993600, 631152000,
	662688000, 709948800, 741484800, 773020800, 820454400, 867715200,
	915148800, 1136073600, 1230768000, 1341100800, 1435708800, 1483228800,
}

// LeapSeconds returns by how many seconds GPS time is ahead of UTC at t: 0 in 1980, 18 since 2017.
// Leap seconds that are announced after this package was written are not in it.
func LeapSeconds(t time.Time) int {
	n := 0
	for _, leap := range leaps {
		if t.Unix() < leap {
			break
		}
		n++
	}
	return n
}

// GPS returns t as time since the GPS epoch, 1980-01-06 00:00:00 UTC, leap seconds included. The
// result overflows after the year 2272.
func GPS(t time.Time) time.Duration {
	return t.Sub(time.Unix(gpsEpoch, 0)) + time.Duration(LeapSeconds(t))*time.Second
}

// UTC is the inverse of [GPS]. A leap second is given as the second after it, as Unix time does.
func UTC(gps time.Duration) time.Time {
	t := time.Unix(gpsEpoch, 0).Add(gps)
	n := 0
	for _, leap := range leaps {
		if t.Unix()-int64(n) <= leap { // the leap second itself is not over yet
			break
		}
		n++
	}
	return t.Add(-time.Duration(n) * time.Second).UTC()
}

// GPSSeconds returns t as the application packages send it: GPS seconds modulo 2^32.
func GPSSeconds(t time.Time) uint32 {
	return uint32(GPS(t) / time.Second)
}

// FromGPSSeconds returns the time at most 2^31 seconds (68 years) away from near that
// [GPSSeconds] sends as s.
func FromGPSSeconds(s uint32, near time.Time) time.Time {
	gps := GPS(near) / time.Second
	return UTC((gps + time.Duration(int32(s-uint32(gps)))) * time.Second)
}
