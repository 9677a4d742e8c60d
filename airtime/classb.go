package airtime

import (
	"crypto/aes"
	"encoding/binary"
	"time"
)

// The timing of class B. A beacon period begins at each multiple of 128 s of GPS time:
//
//	0 s      beacon, then the time reserved for it
//	2.12 s   4096 slots of 30 ms
//	125 s    guard time, in which nothing is sent
//	128 s    next beacon
const (
	BeaconPeriod   = 128 * time.Second
	BeaconReserved = 2120 * time.Millisecond
	BeaconGuard    = 3 * time.Second
	PingSlotLength = 30 * time.Millisecond
	PingSlots      = 4096
)

// BeaconStart returns the start of the beacon period that contains the GPS time gps, which is not
// negative.
func BeaconStart(gps time.Duration) time.Duration {
	return gps - gps%BeaconPeriod
}

// PingNb returns the number of ping slots in a beacon period, 128 for periodicity 0 to 1 for 7.
// Periodicities are 0..7 here as in PingSlotInfoReq; only the low three bits count.
func PingNb(periodicity uint8) int {
	return 128 >> (periodicity & 7)
}

// PingPeriod returns the distance of two ping slots in slots, 32 for periodicity 0 to 4096 for 7.
func PingPeriod(periodicity uint8) int {
	return PingSlots / PingNb(periodicity)
}

// PingOffset returns the first slot, 0..PingPeriod-1, at which devAddr listens in the beacon period
// of the GPS time gps. For multicast devAddr is the address of the group.
func PingOffset(devAddr uint32, gps time.Duration, periodicity uint8) int {
	c, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic("airtime: internal error: " + err.Error()) // AES takes every key of 16 bytes
	}
	var b [16]byte
	binary.LittleEndian.PutUint32(b[0:], uint32(BeaconStart(gps)/time.Second))
	binary.LittleEndian.PutUint32(b[4:], devAddr)
	c.Encrypt(b[:], b[:])
	return int(binary.LittleEndian.Uint16(b[:])) % PingPeriod(periodicity)
}

// PingSlot returns the GPS time at which slot n, 0..PingNb-1, of devAddr opens in the beacon period
// of the GPS time gps.
func PingSlot(devAddr uint32, gps time.Duration, periodicity uint8, n int) time.Duration {
	slot := PingOffset(devAddr, gps, periodicity) + n*PingPeriod(periodicity)
	return BeaconStart(gps) + BeaconReserved + time.Duration(slot)*PingSlotLength
}

// NextPingSlot returns the first ping slot of devAddr that opens at the GPS time gps or later.
func NextPingSlot(devAddr uint32, gps time.Duration, periodicity uint8) time.Duration {
	first := PingSlot(devAddr, gps, periodicity, 0)
	n := 0
	if gps > first {
		step := time.Duration(PingPeriod(periodicity)) * PingSlotLength
		n = int((gps - first + step - 1) / step)
	}
	if n < PingNb(periodicity) {
		return PingSlot(devAddr, gps, periodicity, n)
	}
	return PingSlot(devAddr, gps+BeaconPeriod, periodicity, 0)
}

// ClearOfBeacon reports whether a frame that starts at the GPS time start and takes toa leaves the
// beacon alone: it starts after the reserved time and ends before the guard time. A ping slot may
// open so late that only a short frame does.
func ClearOfBeacon(start, toa time.Duration) bool {
	at := start - BeaconStart(start)
	return at >= BeaconReserved && at+toa <= BeaconPeriod-BeaconGuard
}
