package campaigntest

// Stack is whose packages a stock device has. How they count what they miss is modelled here; package
// simulator/fleet/foreign has the rest of their habits.
type Stack uint8

// The stacks.
const (
	LoRaMacNode Stack = iota + 1 // the number of the last fragment; lost data, repaired or not
	BasicsModem                  // missing rank, but 1 for ever when nothing was lost
	Zephyr                       // fragments heard; the difference to their number
)

// statusOf returns NbFragReceived and MissingFrag.
func (d *Device) statusOf() (received int, missing uint8) {
	m := int(d.session.NbFrag)
	switch d.Stock {
	case LoRaMacNode:
		return d.last, uint8(min(d.last, m) - d.uncoded) // modulo 256
	case BasicsModem:
		if d.uncoded == m {
			return d.received, 1
		}
	case Zephyr:
		return d.received, uint8(min(max(m-d.received, 0), 255))
	}
	return d.received, uint8(min(d.dec.Missing(), 255))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
