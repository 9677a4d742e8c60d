package plan

import (
	"time"

	"github.com/sower-fuota/sower/airtime"
)

// GPSSeconds returns the whole GPS seconds at t, the unit of all times in TS003 to TS006.
func GPSSeconds(t time.Time) int64 { return int64(airtime.GPS(t) / time.Second) }
