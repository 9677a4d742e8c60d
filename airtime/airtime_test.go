package airtime_test

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"testing"
	"time"

	oracle "github.com/brocaar/lorawan/airtime"
	"github.com/brocaar/lorawan/gps"

	"github.com/sower-fuota/sower/airtime"
)

func load(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func TestTimeOnAirVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			SF         int
			BWkHz      int   `json:"bw_khz"`
			PHYPayload int   `json:"phy_payload"`
			ToAus      int64 `json:"toa_us"`
		}
	}
	load(t, "airtime_gps.json", &file)
	if len(file.Vectors) != 80 {
		t.Fatalf("%d vectors, want 80", len(file.Vectors))
	}
	for _, v := range file.Vectors { // all of them with payload CRC
		rate := airtime.DataRate{SpreadingFactor: v.SF, Bandwidth: v.BWkHz * 1000}
		if got := rate.TimeOnAir(v.PHYPayload, airtime.Uplink).Microseconds(); got != v.ToAus {
			t.Errorf("%v, %d bytes: %d us, want %d", rate, v.PHYPayload, got, v.ToAus)
		}
	}
}

// Every frame of every LoRa data rate against another implementation, which counts a payload CRC
// always: without one, it must be the frame of 2 bytes less.
func TestTimeOnAirAgreesWithOracle(t *testing.T) {
	for sf := 7; sf <= 12; sf++ {
		for _, khz := range []int{125, 250, 500} {
			rate := airtime.DataRate{SpreadingFactor: sf, Bandwidth: khz * 1000}
			ldro := khz == 125 && sf >= 11 || khz == 250 && sf == 12
			for n := 0; n <= 255; n++ {
				want, err := oracle.CalculateLoRaAirtime(n, sf, khz, 8, oracle.CodingRate45, true, ldro)
				if err != nil {
					t.Fatal(err)
				}
				if got := rate.TimeOnAir(n, airtime.Uplink); got != want {
					t.Fatalf("%v, %d bytes up: %v, want %v", rate, n, got, want)
				}
				if n < 2 {
					continue
				}
				if got, want := rate.TimeOnAir(n-2, airtime.Uplink), rate.TimeOnAir(n, airtime.Downlink); got != want {
					t.Fatalf("%v: %d bytes up take %v, %d bytes down %v", rate, n-2, got, n, want)
				}
			}
			for cr := 1; cr <= 4; cr++ {
				for _, implicit := range []bool{false, true} {
					m := airtime.LoRa{SpreadingFactor: sf, Bandwidth: khz * 1000, CodingRate: cr, Preamble: 10, ImplicitHeader: implicit, CRC: true}
					want, err := oracle.CalculateLoRaAirtime(50, sf, khz, 10, oracle.CodingRate(cr), !implicit, ldro)
					if err != nil {
						t.Fatal(err)
					}
					if got := m.TimeOnAir(50); got != want {
						t.Errorf("%+v: %v, want %v", m, got, want)
					}
				}
			}
		}
	}
}

// Downlinks of the largest frame, computed by hand and found in the literature.
func TestTimeOnAirDownlink(t *testing.T) {
	for _, tt := range []struct {
		region   airtime.Region
		dr, phy  int
		down, up time.Duration
	}{
		{airtime.EU868, 0, 64, 2793472 * time.Microsecond, 2793472 * time.Microsecond},
		{airtime.EU868, 1, 64, 1478656 * time.Microsecond, 1560576 * time.Microsecond},
		{airtime.EU868, 3, 128, 676864 * time.Microsecond, 676864 * time.Microsecond},
		{airtime.EU868, 4, 255, 696832 * time.Microsecond, 707072 * time.Microsecond},
		{airtime.EU868, 5, 255, 394496 * time.Microsecond, 399616 * time.Microsecond},
		{airtime.EU868, 6, 255, 197248 * time.Microsecond, 199808 * time.Microsecond},
		{airtime.EU868, 7, 255, 42560 * time.Microsecond, 42560 * time.Microsecond},
		{airtime.US915, 8, 66, 616448 * time.Microsecond, 616448 * time.Microsecond},
		{airtime.US915, 10, 255, 563712 * time.Microsecond, 573952 * time.Microsecond},
		{airtime.US915, 13, 255, 98624 * time.Microsecond, 99904 * time.Microsecond},
		{airtime.EU868, 5, 13, 41216 * time.Microsecond, 46336 * time.Microsecond},
	} {
		rate, err := tt.region.DataRate(tt.dr)
		if err != nil {
			t.Fatal(err)
		}
		if got := rate.TimeOnAir(tt.phy, airtime.Downlink); got != tt.down {
			t.Errorf("%v DR%d, %d bytes down: %v, want %v", tt.region, tt.dr, tt.phy, got, tt.down)
		}
		if got := rate.TimeOnAir(tt.phy, airtime.Uplink); got != tt.up {
			t.Errorf("%v DR%d, %d bytes up: %v, want %v", tt.region, tt.dr, tt.phy, got, tt.up)
		}
	}
	for _, m := range []airtime.LoRa{{}, {SpreadingFactor: 7}, {SpreadingFactor: 13, Bandwidth: 125000}, {SpreadingFactor: 7, Bandwidth: -1}} {
		if got := m.TimeOnAir(10); got != 0 {
			t.Errorf("%+v: %v, want 0", m, got)
		}
	}
	if got := (airtime.DataRate{}).TimeOnAir(10, airtime.Uplink); got != 0 {
		t.Errorf("no data rate takes %v, want 0", got)
	}
}

func TestBeacons(t *testing.T) {
	for _, tt := range []struct {
		region airtime.Region
		want   time.Duration
	}{
		{airtime.EU868, 152576 * time.Microsecond},
		{airtime.AS923, 152576 * time.Microsecond},
		{airtime.KR920, 152576 * time.Microsecond},
		{airtime.IN865, 86528 * time.Microsecond},
		{airtime.US915, 305152 * time.Microsecond},
		{airtime.AU915, 305152 * time.Microsecond},
	} {
		if got := tt.region.BeaconTimeOnAir(); got != tt.want {
			t.Errorf("%v: beacon takes %v, want %v", tt.region, got, tt.want)
		}
		if got := tt.region.BeaconTimeOnAir(); got >= airtime.BeaconReserved {
			t.Errorf("%v: beacon takes %v, more than is reserved", tt.region, got)
		}
	}
	for i := range 20 {
		gps := time.Duration(i)*airtime.BeaconPeriod + time.Second
		if f, dr := airtime.US915.Beacon(gps); f != 923_300_000+uint32(i%8)*600_000 || dr != 8 {
			t.Errorf("US915 beacon in period %d: %d Hz DR%d", i, f, dr)
		}
		if f, dr := airtime.EU868.Beacon(gps); f != 869_525_000 || dr != 3 {
			t.Errorf("EU868 beacon in period %d: %d Hz DR%d", i, f, dr)
		}
	}
}

// Data rates and payload limits of every region under every condition, RX2 and ping slots, against
// what another implementation of the regional parameters says. testdata/band.json is its output.
func TestRegionsAgreeWithOracle(t *testing.T) {
	var file struct {
		Configs []struct {
			Region   string
			Repeater bool
			Dwell    bool `json:"dwell_400ms"`
			Rates    []bandRate
		}
		Defaults []struct {
			Region       string
			RX2Frequency uint32 `json:"rx2_frequency"`
			RX2DR        int    `json:"rx2_dr"`
			Pings        []struct {
				Addr      uint32
				GPS       int64 `json:"gps_seconds"`
				Frequency uint32
			}
		}
	}
	load(t, "band.json", &file)
	if len(file.Configs) != 24 || len(file.Defaults) != 6 {
		t.Fatalf("%d configurations, %d defaults, want 24 and 6", len(file.Configs), len(file.Defaults))
	}
	for _, c := range file.Configs {
		region, err := airtime.ParseRegion(c.Region)
		if err != nil {
			t.Fatal(err)
		}
		want := make(map[int]bandRate)
		for _, r := range c.Rates {
			want[r.DR] = r
		}
		for dr := -1; dr <= 16; dr++ {
			for _, dir := range []airtime.Direction{airtime.Downlink, airtime.Uplink} {
				if region == airtime.AU915 && dir == airtime.Downlink && c.Dwell {
					continue // the limit is for uplinks; the oracle knows no direction
				}
				for _, rp002 := range []bool{false, true} {
					link := airtime.Link{Direction: dir, Repeater: c.Repeater, DwellTime: c.Dwell, RP002: rp002}
					want[dr].check(t, region, dr, link)
				}
			}
		}
	}
	for _, d := range file.Defaults {
		region, err := airtime.ParseRegion(d.Region)
		if err != nil {
			t.Fatal(err)
		}
		if f, dr := region.RX2(); f != d.RX2Frequency || dr != d.RX2DR {
			t.Errorf("%v: RX2 %d Hz DR%d, want %d Hz DR%d", region, f, dr, d.RX2Frequency, d.RX2DR)
		}
		for _, p := range d.Pings {
			if f, _ := region.PingSlotDefault(p.Addr, time.Duration(p.GPS)*time.Second); f != p.Frequency {
				t.Errorf("%v: ping slots of %08x at %d s on %d Hz, want %d Hz", region, p.Addr, p.GPS, f, p.Frequency)
			}
		}
	}
}

// bandRate is a data rate as the oracle has it; SF and FSK are 0 for one that does not exist.
type bandRate struct {
	DR       int
	SF       int
	BWkHz    int `json:"bw_khz"`
	FSK      int `json:"fsk_bps"`
	Up, Down bool
	Least    int `json:"n_least"`
	RP002    int `json:"n_rp002"`
}

func (want bandRate) check(t *testing.T, region airtime.Region, dr int, link airtime.Link) {
	t.Helper()
	got := airtime.DataRate{SpreadingFactor: want.SF, Bandwidth: want.BWkHz * 1000, BitRate: want.FSK, Uplink: want.Up, Downlink: want.Down}
	rate, err := region.DataRate(dr)
	if exists := want.SF+want.FSK > 0; rate != got || exists != (err == nil) || !exists && !errors.Is(err, airtime.ErrDataRate) {
		t.Errorf("%v DR%d: %+v, %v, want %+v", region, dr, rate, err, got)
	}
	n := want.Least
	if link.RP002 {
		n = want.RP002
	}
	if link.Direction == airtime.Uplink && !want.Up || link.Direction == airtime.Downlink && !want.Down {
		n = 0
	}
	size, err := region.MaxPayload(dr, link)
	if size != n || (n > 0) != (err == nil) || n == 0 && !errors.Is(err, airtime.ErrDataRate) {
		t.Errorf("%v DR%d %+v: %d bytes, %v, want %d", region, dr, link, size, err, n)
	}
}

// AU915 limits the dwell time of uplinks only.
func TestAU915DownlinkHasNoDwellTime(t *testing.T) {
	for dr := 8; dr <= 13; dr++ {
		with, err1 := airtime.AU915.MaxPayload(dr, airtime.Link{DwellTime: true})
		without, err2 := airtime.AU915.MaxPayload(dr, airtime.Link{})
		if with != without || err1 != nil || err2 != nil {
			t.Errorf("DR%d: %d bytes with dwell time, %d without; %v, %v", dr, with, without, err1, err2)
		}
	}
}

func TestRegionNames(t *testing.T) {
	for _, r := range airtime.Regions() {
		if got, err := airtime.ParseRegion(r.String()); got != r || err != nil {
			t.Errorf("ParseRegion(%q) = %v, %v", r.String(), got, err)
		}
	}
	if r, err := airtime.ParseRegion("eu868"); r != airtime.EU868 || err != nil {
		t.Errorf(`ParseRegion("eu868") = %v, %v`, r, err)
	}
	if _, err := airtime.ParseRegion("EU433"); err == nil {
		t.Error(`ParseRegion("EU433") succeeds`)
	}
	for _, none := range []airtime.Region{0, 7, 255} {
		if _, err := none.DataRate(0); !errors.Is(err, airtime.ErrDataRate) {
			t.Errorf("%v.DataRate(0) = %v, want ErrDataRate", none, err)
		}
		if none.BeaconTimeOnAir() != 0 || len(none.SubBands()) != 0 {
			t.Errorf("%v has a beacon or sub-bands", none)
		}
	}
}

func TestSubBands(t *testing.T) {
	for _, tt := range []struct {
		region airtime.Region
		hz     uint32
		want   string
		duty   int
	}{
		{airtime.EU868, 862_999_999, "", 0},
		{airtime.EU868, 863_000_000, "K", 1},
		{airtime.EU868, 867_900_000, "g", 10},
		{airtime.EU868, 868_100_000, "g1", 10},
		{airtime.EU868, 868_600_000, "", 0},
		{airtime.EU868, 868_800_000, "g2", 1},
		{airtime.EU868, 869_300_000, "", 0},
		{airtime.EU868, 869_525_000, "g3", 100},
		{airtime.EU868, 869_650_000, "", 0},
		{airtime.EU868, 869_800_000, "g4", 10},
		{airtime.EU868, 870_000_000, "", 0},
		{airtime.US915, 923_300_000, "US915", 1000},
		{airtime.AS923, 869_525_000, "", 0},
	} {
		b, err := tt.region.SubBand(tt.hz)
		if tt.want == "" {
			if !errors.Is(err, airtime.ErrFrequency) {
				t.Errorf("%v %d Hz: %+v, %v, want ErrFrequency", tt.region, tt.hz, b, err)
			}
			continue
		}
		if err != nil || b.Name != tt.want || b.DutyCycle != tt.duty {
			t.Errorf("%v %d Hz: %+v, %v, want %s with %d per mille", tt.region, tt.hz, b, err, tt.want, tt.duty)
		}
	}
	for _, r := range airtime.Regions() { // every default frequency lies in a band
		rx2, _ := r.RX2()
		for i := range 8 {
			gps := time.Duration(i) * airtime.BeaconPeriod
			beacon, _ := r.Beacon(gps)
			ping, _ := r.PingSlotDefault(0, gps)
			for _, f := range []uint32{rx2, beacon, ping} {
				if _, err := r.SubBand(f); err != nil {
					t.Error(err)
				}
			}
		}
		bands := r.SubBands()
		bands[0].DutyCycle = 7
		if r.SubBands()[0].DutyCycle == 7 {
			t.Errorf("%v: SubBands hands out its own table", r)
		}
	}
}

func TestGPSVectors(t *testing.T) {
	var file struct {
		GPS []struct {
			UTC        time.Time
			GPSSeconds int64 `json:"gps_seconds"`
		}
	}
	load(t, "airtime_gps.json", &file)
	if len(file.GPS) != 7 {
		t.Fatalf("%d vectors, want 7", len(file.GPS))
	}
	for _, v := range file.GPS {
		want := time.Duration(v.GPSSeconds) * time.Second
		if got := airtime.GPS(v.UTC); got != want {
			t.Errorf("GPS(%v) = %v, want %v", v.UTC, got, want)
		}
		if got := airtime.UTC(want); !got.Equal(v.UTC) {
			t.Errorf("UTC(%v) = %v, want %v", want, got, v.UTC)
		}
		if got := airtime.GPSSeconds(v.UTC); got != uint32(v.GPSSeconds) {
			t.Errorf("GPSSeconds(%v) = %d, want %d", v.UTC, got, uint32(v.GPSSeconds))
		}
	}
}

// Around every leap second: UTC to GPS and back is the identity, GPS to UTC repeats one second, and
// the other implementation agrees outside that second.
func TestLeapSeconds(t *testing.T) {
	n := 0
	for year := 1980; year < 2030; year++ {
		for _, month := range []time.Month{time.January, time.July} {
			midnight := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
			leap := airtime.LeapSeconds(midnight) - airtime.LeapSeconds(midnight.Add(-1))
			n += leap
			for d := -3 * time.Second; d <= 3*time.Second; d += 250 * time.Millisecond {
				at := midnight.Add(d)
				if year == 1980 && month == time.January {
					at = at.AddDate(0, 0, 10)
				}
				g := airtime.GPS(at)
				if got := airtime.UTC(g); !got.Equal(at) {
					t.Errorf("UTC(GPS(%v)) = %v", at, got)
				}
				if d <= -time.Second || d >= 0 { // it counts leap seconds from 23:59:59 on
					if want := gps.Time(at).TimeSinceGPSEpoch(); g != want {
						t.Errorf("GPS(%v) = %v, want %v", at, g, want)
					}
				}
			}
			if leap == 1 {
				after := airtime.GPS(midnight)
				if a, b := airtime.UTC(after-time.Second/2), airtime.UTC(after+time.Second/2); !a.Equal(b) {
					t.Errorf("the leap second before %v is given as %v, want %v", midnight, a, b)
				}
			}
		}
	}
	if n != 18 {
		t.Errorf("%d leap seconds, want 18", n)
	}
}

func TestFromGPSSeconds(t *testing.T) {
	for _, tt := range []struct {
		name     string
		at, near string
	}{
		{"now", "2026-11-22T06:00:00Z", "2026-11-22T06:00:00Z"},
		{"ahead", "2026-12-24T06:00:00Z", "2026-11-22T06:00:00Z"},
		{"behind", "2016-12-31T23:59:59Z", "2026-11-22T06:00:00Z"},
		{"over the wrap of 2116", "2116-03-01T00:00:00Z", "2116-01-01T00:00:00Z"},
		{"back over the wrap", "2116-01-01T00:00:00Z", "2116-03-01T00:00:00Z"},
	} {
		at, err1 := time.Parse(time.RFC3339, tt.at)
		near, err2 := time.Parse(time.RFC3339, tt.near)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if got := airtime.FromGPSSeconds(airtime.GPSSeconds(at), near); !got.Equal(at) {
			t.Errorf("%s: %v, want %v", tt.name, got, at)
		}
	}
}

func TestPingVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			McAddr      string `json:"McAddr_be"`
			BeaconTime  uint32 `json:"beacon_time"`
			Periodicity uint8
			PingNb      int   `json:"pingNb"`
			PingPeriod  int   `json:"pingPeriod_slots"`
			PingOffset  int   `json:"pingOffset_slots"`
			FirstSlotMs int64 `json:"first_slot_ms_after_beacon"`
		}
	}
	load(t, "class_b_ping.json", &file)
	if len(file.Vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range file.Vectors {
		addr64, err := strconv.ParseUint(v.McAddr, 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		addr, beacon := uint32(addr64), time.Duration(v.BeaconTime)*time.Second
		if got := airtime.PingNb(v.Periodicity); got != v.PingNb {
			t.Errorf("PingNb(%d) = %d, want %d", v.Periodicity, got, v.PingNb)
		}
		if got := airtime.PingPeriod(v.Periodicity); got != v.PingPeriod {
			t.Errorf("PingPeriod(%d) = %d, want %d", v.Periodicity, got, v.PingPeriod)
		}
		for _, at := range []time.Duration{beacon, beacon + time.Second, beacon + airtime.BeaconPeriod - 1} {
			if got := airtime.PingOffset(addr, at, v.Periodicity); got != v.PingOffset {
				t.Errorf("PingOffset(%s, %v, %d) = %d, want %d", v.McAddr, at, v.Periodicity, got, v.PingOffset)
			}
		}
		want := beacon + time.Duration(v.FirstSlotMs)*time.Millisecond
		if got := airtime.PingSlot(addr, beacon, v.Periodicity, 0); got != want {
			t.Errorf("PingSlot(%s, %v, %d, 0) = %v, want %v", v.McAddr, beacon, v.Periodicity, got, want)
		}
		if got := airtime.NextPingSlot(addr, beacon, v.Periodicity); got != want {
			t.Errorf("NextPingSlot(%s, %v, %d) = %v, want %v", v.McAddr, beacon, v.Periodicity, got, want)
		}
	}
}

// The figures of a network server's own test, and a walk over all slots of three periods.
func TestNextPingSlot(t *testing.T) {
	for _, tt := range []struct {
		after       time.Duration
		periodicity uint8
		want        time.Duration
	}{
		{0, 7, 74300 * time.Millisecond},
		{120 * time.Second, 7, 185620 * time.Millisecond},
		{0, 6, 12860 * time.Millisecond},
		{124 * time.Second, 0, 124220 * time.Millisecond},
	} {
		if got := airtime.NextPingSlot(0, tt.after, tt.periodicity); got != tt.want {
			t.Errorf("NextPingSlot(0, %v, %d) = %v, want %v", tt.after, tt.periodicity, got, tt.want)
		}
	}
	const addr = 0xfc00ac12
	for periodicity := range uint8(8) {
		at := time.Duration(0)
		for period := range time.Duration(3) {
			for n := range airtime.PingNb(periodicity) {
				want := airtime.PingSlot(addr, period*airtime.BeaconPeriod, periodicity, n)
				if got := airtime.NextPingSlot(addr, at, periodicity); got != want {
					t.Fatalf("periodicity %d, period %d: after %v comes %v, want slot %d at %v", periodicity, period, at, got, n, want)
				}
				if got := airtime.NextPingSlot(addr, want, periodicity); got != want {
					t.Fatalf("periodicity %d: a slot that opens now is %v away", periodicity, got-want)
				}
				at = want + 1
			}
		}
	}
}

func TestClearOfBeacon(t *testing.T) {
	const period = 1000 * airtime.BeaconPeriod
	for _, tt := range []struct {
		name       string
		start, toa time.Duration
		want       bool
	}{
		{"in the reserved time", 2119 * time.Millisecond, time.Millisecond, false},
		{"in the first slot", 2120 * time.Millisecond, time.Second, true},
		{"ends with the window", 124 * time.Second, time.Second, true},
		{"runs into the guard time", 124 * time.Second, time.Second + 1, false},
		{"runs over the beacon", 100 * time.Second, 28 * time.Second, false},
	} {
		if got := airtime.ClearOfBeacon(period+tt.start, tt.toa); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
