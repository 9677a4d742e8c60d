package session

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
)

// frame takes the report of a gateway about a frame of the group. A fragment that no gateway has sent is made up
// for by one more parity fragment: decoders in the field drop data that comes out of order, but take any parity.
func (c *Session) frame(ev network.Event) {
	if ev.Kind != network.EventDropped || ev.Group == "" || ev.Group != c.st.Group {
		return
	}
	f := &c.st.Sent[ev.FCnt%recent]
	if f.Position == 0 || f.FCnt != ev.FCnt {
		return
	}
	gateway := slices.Index(c.spec.Gateways, ev.Gateway)
	if gateway < 0 || gateway >= 64 || f.Refused>>gateway&1 != 0 {
		return // not of this session, or told again
	}
	f.Refused |= 1 << gateway
	fragment := c.spec.Plan.Fragment(f.Position)
	if bits.OnesCount64(f.Refused) < len(c.spec.Gateways) {
		c.emit(Record{What: "refused", Device: ev.Gateway, Cause: refusal(ev.Reason),
			Text: refused(fragment, ev) + "; other gateways have sent it"})
		return
	}
	if f.Position > c.spec.Plan.M {
		c.st.ParitySent--
	} else {
		c.st.DataSent--
	}
	c.st.Refused++
	c.st.Frames--
	c.st.Airtime -= c.spec.Plan.FragmentToA
	f.Position = 0
	text := "; one more parity fragment makes up for it"
	if c.st.Target < c.spec.Plan.Positions() {
		c.st.Target++
	} else {
		text = "; the plan has no parity left to make up for it"
	}
	c.emit(Record{What: "refused", Device: ev.Gateway, Cause: refusal(ev.Reason), Text: refused(fragment, ev) + text})
	if a := &c.st.Air; c.st.Phase == PhaseWindow {
		// It was sent too fast for that gateway.
		a.Rest = c.now.Add(c.spec.Plan.Pace)
		if a.Op == 0 && a.Step == AirSend {
			a.Next = latest(a.Next, a.Rest)
		}
	}
}

func refused(fragment int, ev network.Event) string {
	return fmt.Sprintf("fragment %d was refused by gateway %s: %s", fragment, ev.Gateway, ev.Reason)
}

// refusal is the cause for the word of a gateway.
func refusal(reason string) diag.Cause {
	switch r := strings.ToUpper(reason); {
	case strings.Contains(r, "DUTY"):
		return diag.CauseGatewayDutyCycle
	case strings.Contains(r, "LATE"), strings.Contains(r, "EXPIRED"):
		return diag.CauseGatewayTooLate
	case strings.Contains(r, "COLLISION"):
		return diag.CauseGatewayCollision
	}
	return diag.CauseOK
}
