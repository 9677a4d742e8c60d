// Package airtime answers what LoRaWAN costs on the air: how long a frame takes, how much a frame
// may carry, how much a transmitter may send, and when a class B device listens.
//
//   - [DataRate.TimeOnAir] and [LoRa.TimeOnAir]: LoRa and GFSK, with the payload CRC that uplinks have
//     and downlinks have not.
//   - [Region]: data rates, payload limits and the default frequencies of EU868, US915, AU915, AS923,
//     IN865 and KR920, after LoRaWAN Regional Parameters RP002-1.0.3.
//   - [SubBand] and [Ledger]: duty cycle as a sliding window.
//   - [PingSlot] and its neighbours: beacon periods and ping slots of class B, as LoRaWAN 1.0.3
//     and later define them.
//   - [GPS] and [UTC]: the time scale that class B, TS003 and TS005 use.
//
// All results are computed in integers and are the same on every machine. There is no clock and no
// I/O; the present is always a parameter.
//
// Not covered: LR-FHSS, the 2.4 GHz plans, listen before talk (KR920 and parts of AS923 require it),
// the AS923 groups 2 to 4, and national rules beyond the sub-bands of EU868.
package airtime

import (
	"errors"
	"fmt"
	"time"
)

// Direction says who sends a frame.
type Direction uint8

const (
	Downlink Direction = iota // gateway to device, no payload CRC on LoRa
	Uplink                    // device to gateway, with payload CRC
)

// String returns "downlink" or "uplink".
func (d Direction) String() string {
	switch d {
	case Downlink:
		return "downlink"
	case Uplink:
		return "uplink"
	}
	return fmt.Sprintf("direction %d", uint8(d))
}

// PHYOverhead is what a data frame without FOpts adds to its application payload, in bytes: MHDR 1,
// DevAddr 4, FCtrl 1, FCnt 2, FPort 1, MIC 4.
const PHYOverhead = 13

var (
	// ErrDataRate means that the region has no such data rate, or not under the conditions given.
	ErrDataRate = errors.New("airtime: data rate not available")
	// ErrFrequency means that a frequency lies outside the bands of the region.
	ErrFrequency = errors.New("airtime: frequency not available")
	// ErrDutyCycle means that a transmission would exceed the duty cycle or cannot be sent at all.
	ErrDutyCycle = errors.New("airtime: duty cycle exceeded")
	// ErrBusy means that a transmission overlaps another one of the same transmitter.
	ErrBusy = errors.New("airtime: transmitter is busy")
)

// LoRa describes how a LoRa frame is sent. LoRaWAN data frames are [DataRate.TimeOnAir].
type LoRa struct {
	SpreadingFactor int  // 7..12
	Bandwidth       int  // Hz
	CodingRate      int  // 1..4 for 4/5..4/8
	Preamble        int  // symbols, without the 4.25 of the synchronisation word
	ImplicitHeader  bool // no header in the frame
	CRC             bool // 16 bits behind the payload
}

// TimeOnAir returns the duration of a frame with n bytes of payload, by the formula of the Semtech
// SX1276 and SX1261 data sheets:
//
//	symbols = Preamble + 4.25 + 8 + max(0, ceil((8n - 4SF + 28 + 16CRC - 20IH) / 4(SF - 2DE)) * (CR + 4))
//	time    = symbols * 2^SF / Bandwidth
//
// DE, the low data rate optimisation, is on where a symbol takes 16 ms or longer, as LoRaWAN
// prescribes. The result is rounded down to a nanosecond; at 125, 250 and 500 kHz it is exact. It is
// 0 if Bandwidth is not positive or SpreadingFactor is out of range.
func (m LoRa) TimeOnAir(n int) time.Duration {
	sf := m.SpreadingFactor
	if m.Bandwidth <= 0 || sf < 7 || sf > 12 {
		return 0
	}
	bits := 8*n - 4*sf + 28
	if m.CRC {
		bits += 16
	}
	if m.ImplicitHeader {
		bits -= 20
	}
	perBlock := 4 * sf // bits carried by CodingRate+4 symbols
	if 1000<<sf >= 16*m.Bandwidth {
		perBlock -= 8
	}
	symbols := 8
	if bits > 0 {
		symbols += (bits + perBlock - 1) / perBlock * (m.CodingRate + 4)
	}
	quarters := int64(4*(m.Preamble+symbols) + 17)
	return time.Duration(quarters << sf * int64(time.Second) / (4 * int64(m.Bandwidth)))
}

// DataRate is an entry of a region's table. The zero value is no data rate.
type DataRate struct {
	SpreadingFactor int  // LoRa: 7..12
	Bandwidth       int  // LoRa: Hz
	BitRate         int  // GFSK: bit/s; 0 for LoRa
	Uplink          bool // may be used by devices
	Downlink        bool // may be used by gateways
}

// String returns "SF9/125kHz" or "FSK/50kbps".
func (d DataRate) String() string {
	if d.BitRate > 0 {
		return fmt.Sprintf("FSK/%dkbps", d.BitRate/1000)
	}
	return fmt.Sprintf("SF%d/%dkHz", d.SpreadingFactor, d.Bandwidth/1000)
}

// TimeOnAir returns the duration of a LoRaWAN frame of phyBytes, MHDR to MIC: the application payload
// and [PHYOverhead]. phyBytes is 0..255. LoRa frames have 8 preamble symbols, an explicit header and
// coding rate 4/5, and a payload CRC in uplinks only. GFSK frames have 5 bytes of preamble, 3 of
// synchronisation, 1 of length and 2 of CRC in both directions. It is 0 for the zero DataRate.
func (d DataRate) TimeOnAir(phyBytes int, dir Direction) time.Duration {
	if d.BitRate > 0 {
		const overhead = 5 + 3 + 1 + 2
		return time.Duration(8*int64(overhead+phyBytes)*int64(time.Second)) / time.Duration(d.BitRate)
	}
	return LoRa{
		SpreadingFactor: d.SpreadingFactor,
		Bandwidth:       d.Bandwidth,
		CodingRate:      1,
		Preamble:        8,
		CRC:             dir == Uplink,
	}.TimeOnAir(phyBytes)
}
