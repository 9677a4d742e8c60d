package packages_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

const freq = 869525000

func windowC(id uint8, start, end uint32) cpkg.Window {
	return cpkg.Window{ID: id, Class: 'C', DR: 5, Frequency: freq, Start: start, End: end}
}

func expectWindows(t *testing.T, what string, want ...cpkg.Window) {
	t.Helper()
	if got := cpkg.Windows(); !slices.Equal(got, want) {
		t.Errorf("%s: windows %+v, want %+v", what, got, want)
	}
}

// classC asks for a window of 256 s that opens in so many seconds.
func classC(t *testing.T, now, in uint32) string {
	t.Helper()
	return ask(t, now, 200, "0400"+le32(cpkg.GPSTime(now)+in)+"08d2ad8405")
}

func TestWindows(t *testing.T) {
	newDevice(t, cpkg.Options{})
	groups(0, "04030201", 3, "04030203")(t)
	expect(t, "class C", classC(t, now, 1000), "200:0400e80300")
	expect(t, "class B", ask(t, now, 200, "0503"+le32(gps+2000)+"7628768403"), "200:0503d00700")
	expectWindows(t, "handed over", windowC(0, now+1000, now+1256),
		cpkg.Window{ID: 3, Class: 'B', DR: 3, Periodicity: 7, Frequency: 868100000, Start: now + 2000, End: now + 2000 + 128*64})

	// A correction moves both.
	ask(t, now+10, 202, "01"+le32(5)+"01")
	got := cpkg.Windows()
	if len(got) != 4 || got[2] != windowC(0, now+995, now+1251) || got[3].Start != now+1995 {
		t.Errorf("after a correction of 5 s: %+v", got)
	}
	// Deleting a group cancels its window; deleting one whose window is over only forgets the group.
	expect(t, "delete", ask(t, now+20, 200, "0303"), "200:0303")
	got = cpkg.Windows()
	if len(got) != 5 || got[4].ID != 3 || got[4].Start != got[4].End {
		t.Errorf("after McGroupDelete: %+v", got)
	}
	expect(t, "delete", ask(t, now+1251, 200, "0300"), "200:0300")
	if got := cpkg.Windows(); len(got) != 5 {
		t.Errorf("a window that was over was cancelled: %+v", got)
	}
	if g := cpkg.Groups(); len(g) != 4 || g[2] != (cpkg.Group{ID: 3}) || g[3] != (cpkg.Group{ID: 0}) {
		t.Errorf("groups %+v, want two definitions and two deletions", g)
	}
	expect(t, "deleted group", classC(t, now+1251, 1000), "200:0410")
}

func TestTimeToStart(t *testing.T) {
	for _, tt := range []struct {
		left int64
		want string
	}{
		{0, "200:0400000000"}, {1, "200:0400010000"}, {1<<24 - 2, "200:0400feffff"},
		{1<<24 - 1, "200:0400ffffff"}, {1 << 24, "200:0400ffffff"}, {1 << 30, "200:0400ffffff"}, {-1, "200:0420"}, {-1 << 30, "200:0420"},
	} {
		newDevice(t, cpkg.Options{})
		groups(0, "04030201")(t)
		expect(t, fmt.Sprintf("%d s ahead", tt.left), classC(t, now, uint32(tt.left)), tt.want)
		if n := len(cpkg.Windows()); (n == 1) != (tt.left >= 0) {
			t.Errorf("%d s ahead: %d windows handed over", tt.left, n)
		}
	}
}

// Without the time a window cannot be placed: the device says so, asks for the time, and opens it then.
func TestWindowBeforeClock(t *testing.T) {
	cpkg.Reset()
	open(t, cpkg.Options{}, now)
	drainUntil(now, now+10)
	groups(0, "04030201")(t)
	got := ask(t, now+10, 200, "0400"+le32(gps+1000)+"08d2ad8405")
	expect(t, "answer and clock request", got, fmt.Sprintf("200:0400ffffff 202:01%s10", le32(now+10)))
	expectWindows(t, "before the clock is set")
	sync(t, now+12, gps-now)
	expectWindows(t, "after", windowC(0, now+1000, now+1256))
}

func TestSessionErrors(t *testing.T) {
	for _, tt := range []struct{ name, rest, want string }{
		{"frequency zero in class C", "0800000005", "200:0408"},
		{"frequency too low", "083f420f05", "200:0408"},
		{"data rate", "08d2ad8410", "200:0404"},
		{"both", "080000001f", "200:040c"},
	} {
		newDevice(t, cpkg.Options{})
		groups(0, "04030201")(t)
		expect(t, tt.name, ask(t, now, 200, "0400"+le32(gps+1000)+tt.rest), tt.want)
		expectWindows(t, tt.name)
	}
}

// The radio is not kept open for a device that has what it needs, or will not take it.
func TestWindowEndsWithBlock(t *testing.T) {
	const setup = "02010100020000000000000000aabbccdd" // index 0, group 0, one fragment of two bytes
	for _, tt := range []struct {
		name   string
		cause  uint8
		atOnce bool
		closed bool
	}{
		{"complete", 0, false, true},
		{"refused", causeBase, true, true},
		{"refused when complete", causeMIC, false, true},
		{"put off", causeUser, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newDevice(t, cpkg.Options{})
			groups(0, "04030201", 1, "04030202")(t)
			expect(t, "set-up", ask(t, now, 201, setup), "201:0200")
			classC(t, now, 10)
			ask(t, now, 200, "0401"+le32(gps+10)+"08d2ad8405") // group 1 does not feed this session
			cpkg.StopWith(tt.cause, tt.atOnce)
			down(t, now+20, 201, 0, "080100ffff")
			drain(now + 20)
			got := cpkg.Windows()[2:]
			if !tt.closed {
				if len(got) != 0 {
					t.Errorf("windows %+v, want none closed", got)
				}
				return
			}
			if len(got) != 1 || got[0].ID != 0 || got[0].Start != got[0].End {
				t.Errorf("windows %+v, want that of group 0 closed", got)
			}
			drainUntil(now+20, now+399)
			// The next campaign may set up its window before its session.
			expect(t, "next window", classC(t, now+400, 10), "200:04000a0000")
			drainUntil(now+400, now+405)
			if w := cpkg.Windows(); w[len(w)-1].Start == w[len(w)-1].End {
				t.Error("the window of the next campaign was closed")
			}
		})
	}
}

func TestGroupStatusFits(t *testing.T) {
	for _, tt := range []struct {
		max  uint8
		want string
	}{
		{51, "200:014f0000000000" + "0101000000" + "0202000000" + "0303000000"},
		{21, "200:01470000000000" + "0101000000" + "0202000000"},
		{11, "200:01410000000000"},
	} {
		newDevice(t, cpkg.Options{MaxPayload: tt.max})
		for i := range 4 {
			ask(t, now, 200, groupSetup(i, fmt.Sprintf("%02x000000", i)))
		}
		expect(t, fmt.Sprintf("largest payload %d", tt.max), ask(t, now, 200, "010f"), tt.want)
	}
}
