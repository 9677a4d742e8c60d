package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/fragmentation"
)

// Uplinks that one device spends on an update beside status answers. Set-up: package version, running version, time
// request, group, session, window. Afterwards: image, reboot, new version, two deletions and one ordinary uplink.
const (
	setUpUplinks  = 6
	finishUplinks = 6
	answerBytes   = 12 // of application payload, for their airtime
	maxUpdates    = 16
)

// Request is a campaign to be planned by [Fleet].
type Request struct {
	Campaign     string
	Start        time.Time
	Capabilities network.Capabilities
	Gateways     map[airtime.Region][]network.EUI64 // that transmit, in each region that has devices
	Updates      []Update                           // candidates, in the order of the campaign file
	Waves        []Wave
	Layouts      map[uint16]Layout // by hardware id

	Class       network.Class // B or C; 0: C
	Periodicity *uint8        // as in Input
	OtherClass  bool          // network and devices could do the other class, too: the plan says what it would take
	DataRate    int           // index, or Automatic
	FragSize    int           // imposed; 0: chosen
	Frequency   uint32
	Repeater    bool
	Packages    applayer.Version // of devices that have not told theirs; 0: V2
	Target      float64          // 0: 0.99
	Spacing     time.Duration    // between gateways in class C; 0: 5 s
	Share       float64          // of the duty cycle; 0: 1

	UplinkInterval    time.Duration // 0: 1 h
	Receive, Transmit float64       // mA
}

// Update is a bundle or a raw block that may be sent.
type Update struct {
	Name  string
	Block []byte
	Bases []bundle.Version // of the image that a patch is against
	Raw   *RawBlock        // Block is any file; nil: a bundle
}

// Wave is a set of devices that is finished before the next one begins.
type Wave struct {
	Name    string
	Members []Member
}

// Member is what matters of a device. What is not known is nil; the loss is always an estimate.
type Member struct {
	EUI      network.EUI64
	Region   airtime.Region // required; devices of two regions share no session
	Version  *bundle.Version
	Base     *[8]byte // digest of the running image
	Hardware *uint16
	Class    *uint32
	Packages applayer.Version // 0: not known
	SNR      *float64         // dB
	Loss     float64          // 0..1
}

// Problem is a reason why a campaign cannot be planned. Key names the place in the campaign file, such as
// "bundle[0].file" or "radio.data_rate".
type Problem struct{ Key, Text, Remedy string }

// Schedule is the plan of a campaign.
type Schedule struct {
	Campaign string          `json:"campaign"`
	Target   string          `json:"target_version"` // "unknown" for a raw block without one
	Starts   time.Time       `json:"starts"`
	Ends     time.Time       `json:"ends"` // when the last wave is proven, if nothing goes wrong
	Sessions []Session       `json:"sessions"`
	Devices  int             `json:"devices"`
	UpToDate int             `json:"up_to_date"` // run the target already
	Airtime  time.Duration   `json:"airtime_ns"` // of all gateways together, until the last device is complete
	Uplinks  int             `json:"uplinks"`
	Proven   bool            `json:"cheapest_proven"`    // no other choice of bundles and data rates takes less airtime
	Gateways []network.EUI64 `json:"gateways"`           // that transmit, of all sessions
	Spacing  time.Duration   `json:"gateway_spacing_ns"` // from one to the next
	Usage    []Usage         `json:"duty_cycle"`
	Warnings []string        `json:"warnings,omitempty"`
}

// Session is one multicast group of a wave.
type Session struct {
	Wave    string          `json:"wave"`
	Bundle  string          `json:"bundle"`
	Payload string          `json:"payload"` // full, patch or raw
	From    []string        `json:"from_versions"`
	Plan    Plan            `json:"plan"`
	Devices []network.EUI64 `json:"devices"`
	// Gateways transmit it, one after the other. They are all of the region of the plan.
	Gateways []network.EUI64 `json:"gateways"`

	Opens    time.Time     `json:"window_opens"`
	Ends     time.Time     `json:"window_ends"`
	Windows  int           `json:"windows"`            // a class C window lasts 2^15 s at most
	Expected int           `json:"expected_fragments"` // until the last device is complete, top-ups included
	Airtime  time.Duration `json:"airtime_ns"`         // of one gateway, until then
	Energy   float64       `json:"mah_per_device"`     // of a device that listens until the first status round
	Uplinks  int           `json:"uplinks"`            // of all devices
	Check    Check         `json:"self_check"`
	Delayed  time.Duration `json:"delayed_ns,omitempty"` // by the duty cycle, beyond the pace
	Behind   string        `json:"behind,omitempty"`     // campaign whose session it waits for
	Other    *Alternative  `json:"other_class,omitempty"`
}

// Alternative is what the same session would take in the other class.
type Alternative struct {
	ClassB   *ClassB       `json:"class_b,omitempty"` // nil: class C
	Energy   float64       `json:"mah_per_device"`
	Duration time.Duration `json:"duration_ns"` // as that of a plan
}

// Fleet plans a campaign for a fleet: per wave and group of devices which bundle goes at which data rate, with how
// much parity, when and at what cost, and books the airtime. It returns everything that stands against the
// campaign; then the schedule is empty and the book unchanged.
func Fleet(book *Book, req Request) (Schedule, []Problem) {
	if req.Packages == 0 {
		req.Packages = applayer.V2
	}
	if req.Target == 0 {
		req.Target = target
	}
	if req.Spacing == 0 {
		req.Spacing = 5 * time.Second
	}
	if req.Share == 0 {
		req.Share = 1
	}
	if req.Class == 0 {
		req.Class = network.ClassC
	}
	if req.UplinkInterval == 0 {
		req.UplinkInterval = time.Hour
	}
	f := &fleet{Request: req, book: book.clone()}
	f.out = Schedule{Campaign: req.Campaign, Starts: req.Start, Spacing: req.Spacing, Proven: true}
	f.updates()
	f.suit()
	f.radio()
	if len(f.problems) > 0 {
		return Schedule{}, f.problems
	}
	var drafts []draft
	for _, w := range f.waves {
		for _, a := range f.areas {
			drafts = append(drafts, f.wave(w, a)...)
		}
	}
	if len(f.problems) > 0 {
		return Schedule{}, f.problems
	}
	f.schedule(drafts)
	if len(f.problems) > 0 {
		return Schedule{}, f.problems
	}
	*book = *f.book
	return f.out, nil
}

type fleet struct {
	Request
	book      *Book
	manifests []bundle.Manifest // empty for raw blocks
	areas     []*area
	waves     []wave
	problems  []Problem
	out       Schedule
	guessed   int // devices without link history
}

// wave is a wave whose members are known to need the update.
type wave struct {
	name    string
	members []Member
	suits   []uint64
}

func (f *fleet) problem(key, remedy, format string, args ...any) {
	f.problems = append(f.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (f *fleet) warn(format string, args ...any) {
	f.out.Warnings = append(f.out.Warnings, fmt.Sprintf(format, args...))
}

// draft is a session before it has a time.
type draft struct {
	area    *area
	wave    string
	update  int
	members []Member
	plan    Plan
	other   *Plan // in the other class; nil: that is none
	sent    int   // in the first burst, and until the last device is complete
	toa     time.Duration
}

// wave splits the devices of a wave in one region into sessions.
func (f *fleet) wave(w wave, a *area) []draft {
	var out []draft
	for _, version := range []applayer.Version{applayer.V1, applayer.V2} {
		s := &search{ladder: a.ladder, target: f.Target}
		type kind struct {
			suits uint64
			rung  int
		}
		at := map[kind]int{}
		mean, n := 0.0, 0
		for i, m := range w.members {
			if m.Region != a.region || m.Packages != version && !(m.Packages == 0 && f.Packages == version) {
				continue
			}
			k := kind{w.suits[i], a.fastest(m)}
			c, ok := at[k]
			if !ok {
				c = len(s.classes)
				at[k] = c
				s.classes = append(s.classes, class{suits: k.suits, rung: k.rung})
			}
			s.classes[c].members = append(s.classes[c].members, i)
			s.classes[c].losses[bin(m.Loss)]++
			mean += m.Loss
			n++
		}
		if n == 0 {
			continue
		}
		if len(s.classes) > 64 {
			f.problem("devices", "split the campaign", "wave %s has %d kinds of devices, at most 64 are compared", w.name, len(s.classes))
			continue
		}
		matrix := fragmentation.V2
		if version == applayer.V1 {
			matrix = fragmentation.V1
		}
		s.shape = func(o option) shape { return f.cut(a, o, matrix, mean/float64(n)) }
		pick, proven := s.run()
		f.out.Proven = f.out.Proven && proven
		if !proven {
			f.warn("wave %s: %d kinds of devices are too many to prove that no cheaper choice exists", w.name, len(s.classes))
		}
		groups := map[option]*draft{}
		losses := map[option]*[101]float64{}
		var order []option
		for c, o := range pick {
			if o.update < 0 {
				f.unservable(a, s, s.classes[c])
				continue
			}
			g := groups[o]
			if g == nil {
				g = &draft{area: a, wave: w.name, update: o.update}
				groups[o], losses[o] = g, &[101]float64{}
				order = append(order, o)
			}
			for _, i := range s.classes[c].members {
				g.members = append(g.members, w.members[i])
			}
			for p, x := range s.classes[c].losses {
				losses[o][p] += x
			}
		}
		slices.SortFunc(order, func(x, y option) int { return (x.update-y.update)*len(a.ladder) + x.rung - y.rung })
		for _, o := range order {
			g := groups[o]
			g.sent, g.toa = sent(s.cut(o).m, *losses[o], math.Ln2), s.cut(o).toa
			if err := f.make(g, o, s.cut(o).size, matrix); err != nil {
				f.problem(f.source(o.update), "see the cause", "%s: %s", f.Updates[o.update].Name, err)
				continue
			}
			g.sent = max(g.sent, g.plan.M+g.plan.Parity)
			out = append(out, *g)
		}
	}
	return out
}

// fastest returns the first rung of the ladder that a device can receive.
func (a *area) fastest(m Member) int {
	if a.imposed >= 0 {
		return a.imposed
	}
	for i, r := range a.ladder {
		if m.SNR != nil && *m.SNR >= r.need || m.SNR == nil && r.rate.SpreadingFactor >= fallbackSF {
			return i
		}
	}
	return len(a.ladder) - 1
}

// cut chooses fragment size and number for an option.
func (f *fleet) cut(a *area, o option, matrix fragmentation.Matrix, loss float64) shape {
	r, block, man := a.ladder[o.rung], f.Updates[o.update].Block, f.manifests[o.update]
	sh := shape{}
	if f.FragSize > r.limit {
		sh.refusal = fmt.Sprintf("fragments of %d bytes, DR%d carries %d", f.FragSize, r.index, r.limit)
		return sh
	}
	limit, most := f.Updates[o.update].Raw.limits(r.limit)
	if f.FragSize > limit {
		sh.refusal = fmt.Sprintf("fragments of %d bytes, the devices hold fragments of at most %d", f.FragSize, limit)
		return sh
	}
	ch, err := fragmentation.Choose(fragmentation.Request{Length: len(block), Matrix: matrix, MaxSize: limit, MaxM: most, Size: f.FragSize,
		Loss: min(loss, 0.9)})
	if err != nil {
		sh.refusal = err.Error()
		return sh
	}
	sh.m, sh.size = ch.M, ch.Size
	sh.toa = r.rate.TimeOnAir(sh.size+datablock.FragmentOverhead+airtime.PHYOverhead, airtime.Downlink)
	if l, ok := f.layout(o.update); ok {
		sh.refusal = l.session(sh.m, sh.size, int(man.RAM))
	}
	return sh
}

// unservable explains why a class has no session.
func (f *fleet) unservable(a *area, s *search, c class) {
	for u := range f.Updates {
		if c.suits>>u&1 == 0 {
			continue
		}
		key, remedy := f.source(u), "use a patch, larger fragments or a faster data rate"
		if f.Updates[u].Raw != nil {
			remedy = "make the file smaller, choose a faster data rate, or correct what [raw] says of the devices"
		}
		f.problem(key, remedy, "%s does not fit %d devices at DR%d of %s: %s", f.Updates[u].Name, len(c.members), s.ladder[c.rung].index,
			a.region, s.cut(option{u, c.rung}).refusal)
	}
}

// make plans a session.
func (f *fleet) make(g *draft, o option, size int, matrix fragmentation.Matrix) error {
	raw := f.Updates[o.update].Raw
	_, most := raw.limits(0)
	a := g.area
	in := Input{Block: f.Updates[o.update].Block, Raw: raw != nil, MaxM: most, Region: a.region, Class: f.Class, DataRate: a.ladder[o.rung].index,
		Devices: len(g.members), Gateways: len(a.gateways), Matrix: matrix, FragSize: size, Target: f.Target, Capabilities: f.Capabilities,
		Frequency: a.frequency, Periodicity: f.Periodicity, Spacing: f.Spacing, Share: f.Share, Repeater: f.Repeater,
		FullSize: int(f.manifests[o.update].NewSize)}
	for _, m := range g.members {
		in.Loss = append(in.Loss, min(m.Loss, 0.99))
	}
	var err error
	if g.plan, err = in.plan(); err == nil && f.OtherClass {
		g.other = in.inOtherClass(g.plan)
	}
	return err
}

// schedule gives each session its time, and the campaign its costs.
func (f *fleet) schedule(drafts []draft) {
	set := 6 * f.UplinkInterval // one answer per uplink
	lead := 6 * f.UplinkInterval
	finish := time.Duration(finishUplinks) * f.UplinkInterval
	begin, end := f.Start, f.Start
	for i, d := range drafts {
		if i > 0 && d.wave != drafts[i-1].wave {
			begin = end.Add(finish)
		}
		frames := frames(d.sent)
		at, err := f.book.place(f.Campaign, begin.Add(set+lead), d.plan, d.area.gateways, frames, f.Spacing)
		if err != nil {
			f.problem("radio", "choose a faster data rate or another frequency", "%s", err)
			return
		}
		_, fit := d.plan.Window(frames, repairRounds)
		windows := max(1, (frames+max(fit, 1)-1)/max(fit, 1))
		at.ends = at.ends.Add(time.Duration(windows-1) * lead)
		s := Session{Wave: d.wave, Bundle: f.Updates[d.update].Name, Payload: f.payload(d.update), Plan: d.plan, Gateways: d.area.gateways,
			Opens: at.opens, Ends: at.ends, Windows: windows, Expected: d.sent, Airtime: time.Duration(frames) * d.toa,
			Delayed: at.delayed}
		if at.behind != f.Campaign {
			s.Behind = at.behind
		}
		from := map[bundle.Version]bool{}
		unknown := false
		var losses [101]float64
		for _, m := range d.members {
			s.Devices = append(s.Devices, m.EUI)
			losses[bin(m.Loss)]++
			if m.Version != nil {
				from[*m.Version] = true
			} else {
				unknown = true
			}
		}
		var known []bundle.Version
		for v := range from {
			known = append(known, v)
		}
		slices.Sort(known)
		for _, v := range known {
			s.From = append(s.From, v.String())
		}
		if unknown {
			s.From = append(s.From, "unknown")
		}
		s.Uplinks = len(d.members) * (setUpUplinks + finishUplinks)
		if d.plan.Canary {
			s.Uplinks += len(d.members)
		}
		s.Uplinks += int(math.Ceil(float64(len(d.members)) * (1 - f.Target) * 2))
		region := d.area.region
		rate, _ := region.DataRate(d.plan.DataRate)
		up := answerRate(region, rate.SpreadingFactor).TimeOnAir(answerBytes+airtime.PHYOverhead, airtime.Uplink)
		energy := func(p Plan) float64 {
			return f.Receive*p.listening(region).Hours() + f.Transmit*up.Hours()*float64(s.Uplinks)/float64(len(d.members))
		}
		s.Energy = energy(d.plan)
		if d.other != nil {
			s.Other = &Alternative{ClassB: d.other.ClassB, Energy: energy(*d.other), Duration: d.other.Duration}
		}
		s.Check = selfCheck(d.plan, losses)
		if !s.Check.Meets(f.Target) {
			f.warn("session of wave %s: %.1f %% of %d simulated devices complete with the first burst, %.1f %% were planned",
				d.wave, 100*s.Check.Complete, s.Check.Devices, 100*f.Target)
		}
		man := f.manifests[d.update]
		if man.Expiry != 0 {
			if at := airtime.UTC(time.Duration(man.Expiry) * time.Second); !at.After(s.Ends) {
				f.problem(fmt.Sprintf("bundle[%d].file", d.update), "sign the bundle again with a later expiry, or start earlier",
					"%s expires on %s, wave %s is on the air until %s", s.Bundle, at.Format(time.RFC3339), d.wave, s.Ends.Format(time.RFC3339))
			}
		}
		if l, ok := f.layout(d.update); ok {
			if top := l.MaxLost(d.plan.M, d.plan.FragSize); top < d.plan.M {
				f.warnCap(d, top, "their slot B can solve for")
			}
		}
		if raw := f.Updates[d.update].Raw; raw != nil && raw.MaxLost > 0 && raw.MaxLost < d.plan.M {
			f.warnCap(d, raw.MaxLost, "their decoder was built for")
		}
		end = later(end, s.Ends)
		f.out.Airtime += s.Airtime * time.Duration(len(d.area.gateways))
		f.out.Uplinks += s.Uplinks
		f.out.Sessions = append(f.out.Sessions, s)
	}
	f.out.Ends = end.Add(finish)
	for _, a := range f.areas {
		f.out.Gateways = append(f.out.Gateways, a.gateways...)
	}
	f.out.Usage = f.book.Usage(f.out.Gateways)
	if f.DataRate != Automatic {
		weak := 0
		for _, d := range drafts {
			for _, m := range d.members {
				if m.SNR != nil && *m.SNR < d.area.ladder[d.area.imposed].need {
					weak++
				}
			}
		}
		if weak > 0 {
			f.warn("%d devices are heard with less than the margin of %d dB that DR%d wants; \"auto\" would serve them more slowly", weak, margin, f.DataRate)
		}
	}
	f.warnPackages()
	if f.Class == network.ClassB {
		f.warnClassB()
	}
	if f.guessed > 0 && f.DataRate == Automatic {
		f.warn("%d devices have no link history: SF%d and a loss of 10 %% are guesses; listen with `sower devices --listen`", f.guessed, fallbackSF)
	}
}

// warnCap warns of devices that lose more than their decoder has rows for.
func (f *fleet) warnCap(d draft, top int, why string) {
	over := 0.0
	for _, m := range d.members {
		over += fragmentation.OverCap(d.plan.M, top, min(m.Loss, 0.99))
	}
	if over >= 0.5 {
		f.warn("wave %s: about %.0f devices will lose more than the %d data fragments that %s, and cannot complete in one session",
			d.wave, over, top, why)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
