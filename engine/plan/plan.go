// Package plan decides how firmware reaches a fleet over LoRaWAN multicast of class B or C by TS004 and TS005. [Make]
// plans one block for one group of devices: data rate, fragment size, parity, pace, receive window, and what that costs.
// [Fleet] plans a campaign: which bundle goes to which devices at which data rate, wave by wave, when, and what it
// costs, with one account of the air ([Book]) for all campaigns. Devices of two regions share no session; each region
// has data rates, a channel and gateways of its own. Top-ups by unicast and airtime that others use are not in it.
//
// Everything here is a pure function of its arguments: the same input gives the same plan.
package plan

import (
	"fmt"
	"strings"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/fragmentation"
)

// MaxTimeOut is the largest TimeOut of a session: 2^15 s, or 9.1 hours, in class C, and 2^15 beacon periods in class B.
const MaxTimeOut = 15

// repairRounds is how many rounds of status request and top-up the first window has room for.
const repairRounds = 3

// Plan is what [Make] decides. Durations are JSON numbers in nanoseconds; String is for people.
type Plan struct {
	Region    string `json:"region"`
	DataRate  int    `json:"data_rate"`
	Frequency uint32 `json:"frequency_hz"`
	Gateways  int    `json:"gateways"` // that transmit each fragment, one after the other
	Devices   int    `json:"devices"`

	Matrix    fragmentation.Matrix `json:"matrix"`
	BlockSize int                  `json:"block_bytes"`
	FragSize  int                  `json:"fragment_bytes"`
	M         int                  `json:"data_fragments"`
	Padding   int                  `json:"padding_bytes"`
	Parity    int                  `json:"parity_fragments"` // the first burst; top-ups come from status answers
	Indices   []int                `json:"parity_indices"`   // in the order of sending; more than Parity, for top-ups

	BlockAckDelay uint8         `json:"block_ack_delay"`
	Canary        bool          `json:"canary"`            // ask all devices before the first fragment
	Pace          time.Duration `json:"pace_ns"`           // from one multicast message to the next
	Guard         time.Duration `json:"guard_ns"`          // at both ends of a window in which nothing is handed to the server
	TimeOut       uint8         `json:"session_time_out"`  // of the first window: 2^TimeOut seconds, in class B beacon periods
	ClassB        *ClassB       `json:"class_b,omitempty"` // nil: class C
	FragmentToA   time.Duration `json:"fragment_time_on_air_ns"`
	StatusToA     time.Duration `json:"status_time_on_air_ns"`

	Airtime    time.Duration `json:"airtime_ns"`  // per gateway: data, first parity burst, status requests
	Duration   time.Duration `json:"duration_ns"` // from the start of the window to the end of the first status round
	Full       *Baseline     `json:"full_image,omitempty"`
	Compressed *Baseline     `json:"compressed_image,omitempty"`
	Warnings   []string      `json:"warnings,omitempty"`
}

// Baseline is what an image would cost at the same data rate and fragment size with 30 % parity.
type Baseline struct {
	Bytes     int           `json:"bytes"`
	Fragments int           `json:"fragments"` // data and parity
	Airtime   time.Duration `json:"airtime_ns"`
}

// Version is the version of TS003, TS004 and TS005 that goes with the matrix.
func (p Plan) Version() applayer.Version {
	if p.Matrix == fragmentation.V1 {
		return applayer.V1
	}
	return applayer.V2
}

// AnswerWindow is how long the server waits for the answers to a status request.
func (p Plan) AnswerWindow() time.Duration {
	wait := datablock.AnswerWindow(p.BlockAckDelay) + 10*time.Second
	if p.ClassB != nil {
		wait += p.ClassB.Wait
	}
	return wait
}

// Window returns the length of a session, 2^exponent seconds, that has room for that many multicast messages and
// rounds of status answers, and the number of messages that really fit. A session cannot be longer than [MaxTimeOut],
// and in class B not shorter than a beacon period; what does not fit goes into another one.
func (p Plan) Window(messages, rounds int) (exponent uint8, fit int) {
	least, most := uint8(0), uint8(MaxTimeOut)
	if p.ClassB != nil {
		least, most = beaconExponent, MaxTimeOut+beaconExponent
	}
	rest := 2*p.Guard + time.Duration(rounds)*p.AnswerWindow()
	need := rest + time.Duration(messages)*p.Pace
	for exponent = least; exponent < most && time.Second<<exponent < need; exponent++ {
	}
	return exponent, max(0, int((time.Second<<exponent-rest)/p.Pace))
}

// Fragment returns the number of the fragment that is sent in that position, counted from 1: the data
// fragments in order, then the parity list. It is 0 beyond the list.
func (p Plan) Fragment(position int) int {
	switch {
	case position < 1 || position > p.Positions():
		return 0
	case position <= p.M:
		return position
	}
	return p.Indices[position-p.M-1]
}

// Positions is how many different fragments the plan provides for.
func (p Plan) Positions() int { return p.M + len(p.Indices) }

// String renders the plan in a few lines for a person.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d bytes to %d devices: %d+%d fragments of %d bytes (matrix %s)\n",
		p.BlockSize, p.Devices, p.M, p.Parity, p.FragSize, p.Matrix)
	fmt.Fprintf(&b, "%s DR%d at %.3f MHz through %d gateway(s), one message every %s, %s\n",
		p.Region, p.DataRate, float64(p.Frequency)/1e6, p.Gateways, p.Pace.Round(time.Millisecond), p.Receive())
	fmt.Fprintf(&b, "airtime %s, about %s in the window", p.Airtime.Round(time.Second/10), p.Duration.Round(time.Second))
	for _, bl := range []struct {
		name string
		b    *Baseline
	}{{"full image", p.Full}, {"compressed image", p.Compressed}} {
		if bl.b != nil && p.Airtime > 0 {
			fmt.Fprintf(&b, "\n%s: %d bytes, %d fragments, airtime %s (%.1f times as much)", bl.name, bl.b.Bytes,
				bl.b.Fragments, bl.b.Airtime.Round(time.Second/10), float64(bl.b.Airtime)/float64(p.Airtime))
		}
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "\nwarning: %s", w)
	}
	return b.String()
}
