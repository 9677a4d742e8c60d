package networkserver

import "github.com/brocaar/lorawan"

// MAC commands: the server asks for the status and for ping slots, and hears what devices say of both.

// maxRefusals of a MAC command is how often the server asks again.
const maxRefusals = 3

// requests are the MAC commands of the next answer, in this order. pingInfo says that the device has told of its ping slots
// in the uplink that is answered.
func (s *Server) requests(d *device, pingInfo bool) (out []lorawan.MACCommand) {
	if pingInfo {
		out = append(out, lorawan.MACCommand{CID: lorawan.PingSlotInfoAns})
	}
	if s.asksStatus(d) {
		out = append(out, lorawan.MACCommand{CID: lorawan.DevStatusReq})
	}
	if p := d.session.ping; d.profile.ClassB && !p.set && p.refused <= maxRefusals {
		_, dr := s.planOf(d.profile.Region).Region.PingSlotDefault(0, 0)
		out = append(out, lorawan.MACCommand{CID: lorawan.PingSlotChannelReq, Payload: &lorawan.PingSlotChannelReqPayload{DR: uint8(dr)}}) // 0 Hz: the default
	}
	return out
}

// commands takes the MAC commands of an uplink; phy is decrypted. It reports whether the device has told of its ping slots.
func (s *Server) commands(d *device, r *reception, phy lorawan.PHYPayload, uplink string) (pingInfo bool) {
	mac := phy.MACPayload.(*lorawan.MACPayload)
	if err := phy.DecodeFOptsToMACCommands(); err != nil {
		s.log.Debug("MAC commands", "device", d.EUI, "err", err)
		return false
	}
	list := mac.FHDR.FOpts
	if mac.FPort != nil && *mac.FPort == 0 {
		list = append(list, mac.FRMPayload...)
	}
	status := false
	for _, p := range list {
		c, ok := p.(*lorawan.MACCommand)
		if !ok {
			continue
		}
		switch p := c.Payload.(type) {
		case *lorawan.DevStatusAnsPayload:
			if !status { // one of several would be enough, and the server looks at the first
				d.status, status = p, true
				s.publishStatus(d, r, uplink)
			}
		case *lorawan.PingSlotInfoReqPayload:
			d.session.ping.told, d.session.ping.periodicity, pingInfo = true, p.Periodicity, true
		case *lorawan.PingSlotChannelAnsPayload:
			d.session.ping.answered(p)
		}
	}
	return pingInfo
}
