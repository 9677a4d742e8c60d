package foreign

import (
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
)

const cidDataFragment = 0x08

// session is a TS004 session.
type session struct {
	setup   datablock.FragSessionSetupReq
	decoder *fragmentation.Decoder
	status
	finished bool // so the application was told
	block    []byte
	micError bool
	acked    bool // FragDataBlockReceivedAns has come
}

// status is what the counters of a stack say.
type status struct {
	last    int  // highest number used; all parity counts as the first, for it is taken in any order
	top     int  // highest number used
	frames  int  // fragments that came, whichever
	rx      int  // number of the fragment that came last
	lost    int  // uncoded fragments that were skipped
	tail    bool // the skipped ones at the end are counted
	tooMany bool // more than the redundancy holds
}

// dataBlock takes a message on the port of TS004 other than a fragment.
func (d *Device) dataBlock(data []byte) {
	commands, _ := datablock.Parse(d.cfg.Version, applayer.Downlink, data)
	var reply []byte
	for _, c := range commands {
		var ans datablock.Command
		switch c := c.(type) {
		case datablock.PackageVersionReq:
			ans = datablock.PackageVersionAns{PackageIdentifier: uint8(applayer.DataBlock), PackageVersion: uint8(d.cfg.Version)}
		case datablock.FragSessionSetupReq:
			ans = d.setUp(c)
		case datablock.FragSessionDeleteReq:
			ans = datablock.FragSessionDeleteAns{FragIndex: c.FragIndex, SessionDoesNotExist: d.sessions[c.FragIndex] == nil}
			d.sessions[c.FragIndex] = nil
		case datablock.FragSessionStatusReq:
			d.report(c)
		case datablock.FragDataBlockReceivedAns:
			if s := d.sessions[c.FragIndex]; s != nil {
				s.acked = true
			}
		}
		if ans == nil {
			continue
		}
		if b, err := datablock.AppendCommand(reply, d.cfg.Version, ans); err == nil {
			reply = b
		}
	}
	if len(reply) > 0 {
		d.out = append(d.out, modem.Up{Port: applayer.FPortDataBlock, Data: reply})
	}
}

// setUp starts a session. One that is there already under this index is forgotten.
func (d *Device) setUp(c datablock.FragSessionSetupReq) datablock.Command {
	ans := datablock.FragSessionSetupAns{FragIndex: c.FragIndex}
	ans.FragAlgoUnsupported = c.FragAlgo != 0
	ans.NotEnoughMemory = int(c.NbFrag) > d.cfg.MaxFragments || int(c.FragSize) > d.cfg.MaxFragSize
	if old := d.sessions[c.FragIndex]; d.cfg.Version == applayer.V2 && old != nil && c.SessionCnt <= old.setup.SessionCnt {
		ans.SessionCntReplay = true // a reboot forgets it, unlike the specification wants
	}
	if !ans.Accepted() || c.Validate() != nil {
		return ans
	}
	matrix := fragmentation.V1
	if d.cfg.Version == applayer.V2 {
		matrix = fragmentation.V2
	}
	decoder, err := fragmentation.NewDecoder(int(c.NbFrag), int(c.FragSize), matrix)
	if err != nil {
		ans.NotEnoughMemory = true
		return ans
	}
	s := &session{setup: c, decoder: decoder}
	if d.cfg.Stack == LoRaMacNode {
		s.rx, s.tooMany = d.old.rx, d.old.tooMany
	}
	d.sessions[c.FragIndex] = s
	return ans
}

// fragment takes a DataFragment.
func (d *Device) fragment(group uint8, indexN uint16, data []byte) {
	s := d.sessions[indexN>>14]
	if d.cfg.Stack == Zephyr {
		for _, other := range d.sessions { // whatever the index
			if other != nil {
				other.frames++
			}
		}
	}
	if s == nil || s.finished || len(data) != int(s.setup.FragSize) {
		return
	}
	if d.cfg.Stack == BasicsModem && group != modem.Unicast && s.setup.McGroupBitMask>>group&1 == 0 {
		return
	}
	n, nb := int(indexN&0x3fff), int(s.setup.NbFrag)
	if d.cfg.Stack == BasicsModem && s.tooMany {
		return
	}
	if s.rx = n; n == 0 || n < s.last {
		return
	}
	if n > nb && !s.tail {
		s.lost += nb - min(s.last, nb)
		s.tail = true
		s.tooMany = d.cfg.MaxRedundancy > 0 && s.lost > d.cfg.MaxRedundancy
	} else if n <= nb && n > s.last {
		s.lost += n - s.last - 1
	}
	s.last, s.top = min(n, nb+1), max(n, s.top)
	d.old = s.status
	if n > nb && s.tooMany {
		s.finished = d.cfg.Stack != BasicsModem // "finished, nothing missing"
		return
	}
	done, err := s.decoder.Add(n, data)
	if err != nil || !done || d.cfg.LateFinish && n <= nb {
		return
	}
	block, err := s.decoder.Block(int(s.setup.Padding))
	if err != nil {
		return
	}
	s.finished, s.block = true, block
	d.complete, d.installed = block, d.now+uint64(d.cfg.Install/time.Millisecond)
	if d.cfg.Version == applayer.V2 && s.lost > 0 { // without losses MissingFrag stays, and the MIC is never looked at
		want := datablock.SessionMIC(datablock.DataBlockIntKey(d.cfg.GenAppKey), s.setup.SessionCnt, s.setup.FragIndex, s.setup.Descriptor, block)
		s.micError = want != s.setup.MIC
	}
	if s.setup.AckReception {
		if b, err := datablock.AppendCommand(nil, d.cfg.Version, datablock.FragDataBlockReceivedReq{FragIndex: s.setup.FragIndex, MICError: s.micError}); err == nil {
			d.sendLater(window(s.setup.BlockAckDelay), modem.Up{Port: applayer.FPortDataBlock, Data: b})
		}
	}
}

func window(blockAckDelay uint8) uint64 {
	return uint64(datablock.AnswerWindow(blockAckDelay) / time.Millisecond)
}

// report answers a status request, if the stack does.
func (d *Device) report(c datablock.FragSessionStatusReq) {
	s := d.sessions[c.FragIndex]
	ans := datablock.FragSessionStatusAns{FragIndex: c.FragIndex}
	if s == nil {
		switch {
		case d.cfg.Stack == LoRaMacNode:
			ans.NbFragReceived, ans.MissingFrag = uint16(d.old.rx), uint8(d.old.lost)
		case d.cfg.Stack == BasicsModem && d.cfg.Version == applayer.V2:
			// All four bytes, which say nothing but that.
			d.out = append(d.out, modem.Up{Port: applayer.FPortDataBlock, Data: []byte{0x01, 0x04, 0, 0, 0}})
			return
		default:
			return
		}
		d.sendStatus(0, ans)
		return
	}
	nb := int(s.setup.NbFrag)
	switch d.cfg.Stack {
	case LoRaMacNode:
		ans.NbFragReceived, ans.MissingFrag = uint16(s.rx), uint8(s.lost)
		ans.MemoryError = s.tooMany
	case BasicsModem:
		missing := s.decoder.Missing()
		if s.finished && s.lost == 0 {
			missing = 1
		}
		if missing == 0 && !c.Participants {
			return
		}
		ans.NbFragReceived, ans.MissingFrag = uint16(s.top-s.lost), uint8(missing)
		ans.MemoryError, ans.MICError = s.tooMany, s.micError
	case Zephyr:
		ans.NbFragReceived, ans.MissingFrag = uint16(min(s.frames, 0x3fff)), uint8(min(max(nb-s.frames, 0), 255))
		ans.MemoryError = s.tooMany
	}
	d.sendStatus(s.setup.BlockAckDelay, ans)
}

func (d *Device) sendStatus(blockAckDelay uint8, ans datablock.FragSessionStatusAns) {
	if b, err := datablock.AppendCommand(nil, d.cfg.Version, ans); err == nil {
		d.sendLater(window(blockAckDelay), modem.Up{Port: applayer.FPortDataBlock, Data: b})
	}
}
