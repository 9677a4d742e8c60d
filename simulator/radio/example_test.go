package radio_test

import (
	"fmt"
	"log"
	"math/bits"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

// Which of 64 fragments, one a second, three devices lose to bursts of four seconds on average and to the outages of
// their gateway.
func ExampleLoss() {
	channel, err := radio.Bursts(time.Second, 0.1, 4*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	bursts, err := channel.New(1)
	if err != nil {
		log.Fatal(err)
	}
	outages, err := radio.Outages(3, time.Second, 5*time.Second, 40*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	loss := radio.Any(bursts, outages)

	slots := make([]radio.Slot, 64)
	for i := range slots {
		slots[i] = radio.Slot{Fragment: uint32(i), At: time.Duration(i) * time.Second}
	}
	sampler := loss.Sampler(slots)
	lost := make([]uint64, 1)
	for device := range uint64(3) {
		l := radio.Link{Device: device}
		sampler.Fill(lost, l)
		fmt.Printf("%064b %2d lost; the last one alone: %t\n", bits.Reverse64(lost[0]), bits.OnesCount64(lost[0]), loss.Lost(l, slots[63]))
	}
	// Output:
	// 0000000000001111101110000001111000000001000000000000000000000000 13 lost; the last one alone: false
	// 0000000000000000011110000001111000100000000011000000000000000000 11 lost; the last one alone: false
	// 0000000000000000001110000001111000000000000000111111110000000000 15 lost; the last one alone: false
}
